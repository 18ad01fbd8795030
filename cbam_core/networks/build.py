"""From what a spec says about the network to the network."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from cbam_core.backbones import CIFAR_RESNETS, MOBILENETS, is_timm, stage_count
from cbam_core.networks.attach import AttentionPlan
from cbam_core.networks.first_weights import build_seeded, parameter_names
from cbam_core.networks.mobilenet import MobileNetPlan, MobileNetV1
from cbam_core.networks.pretrained import load_published_weights
from cbam_core.networks.resnet import ResNet, ResNetPlan
from cbam_core.networks.timm_backbone import timm_builder
from cbam_core.seeding import seed_of
from cbam_core.semantics import CURRENT, Semantics
from cbam_core.spec import ModelSpec

RESNET_PLANS: dict[str, ResNetPlan] = {
    "resnet18": ResNetPlan(block="basic", depths=(2, 2, 2, 2)),
    "resnet34": ResNetPlan(block="basic", depths=(3, 4, 6, 3)),
    "resnet50": ResNetPlan(block="bottleneck", depths=(3, 4, 6, 3)),
    "resnet101": ResNetPlan(block="bottleneck", depths=(3, 4, 23, 3)),
    "resnet152": ResNetPlan(block="bottleneck", depths=(3, 8, 36, 3)),
    "wrn18_1_5": ResNetPlan(block="basic", depths=(2, 2, 2, 2), widths=(96, 192, 384, 768)),
    "wrn18_2": ResNetPlan(block="basic", depths=(2, 2, 2, 2), widths=(128, 256, 512, 1024)),
    "resnext50_32x4d": ResNetPlan(block="bottleneck", depths=(3, 4, 6, 3), groups=32, group_width=4),
    "resnext101_32x4d": ResNetPlan(block="bottleneck", depths=(3, 4, 23, 3), groups=32, group_width=4),
}
"""The networks of ImageNet's residual family, with their ImageNet stem."""


def build_network(
    model: ModelSpec,
    num_classes: int,
    in_channels: int = 3,
    *,
    semantics: Semantics = CURRENT,
    seed: int | None = None,
) -> nn.Module:
    """The network that `model` describes: images N in_channels H W in, class scores N num_classes out.

    Weights start from timm's published ones where `pretrained` is set (which timm downloads, or finds in its cache),
    and what is not among those at random: each parameter from `seed` and its name, and torch's global generator stays
    as it is; or one after the other from that generator where `seed` is left out. Inside `torch.device("meta")` nothing
    is allocated. `semantics` is what the experiment began with (`cbam_core.semantics`); under 1, `seed` seeds the
    global generator. The file of `weights` is not loaded here (see `cbam_core.initial_weights`), and nothing is frozen.
    Raises UnknownBackbone (timm has no such network or weights), AttentionNotSupported (it can carry none, or has no
    such stage), StateDictMismatch (published weights that do not fit).
    """
    build = _builder(model, num_classes, in_channels, semantics)
    if seed is None or torch.get_default_device().type == "meta":
        return build()
    if semantics == 1:
        torch.manual_seed(seed_of(seed, "weights"))
        return build()
    return build_seeded(build, _parameter_names(model, num_classes, in_channels), seed)


@lru_cache(maxsize=64)
def _parameter_names(model: ModelSpec, num_classes: int, in_channels: int) -> tuple[str, ...]:
    bare = model.model_copy(update={"pretrained": False})
    return parameter_names(_builder(bare, num_classes, in_channels, CURRENT))


def _builder(model: ModelSpec, num_classes: int, in_channels: int, semantics: Semantics) -> Callable[[], nn.Module]:
    """What builds the network, its weights drawn as torch's global generator gives them."""
    if is_timm(model.backbone):
        return timm_builder(model, num_classes, in_channels, semantics=semantics)
    return lambda: _build(model, num_classes, in_channels)


def _build(model: ModelSpec, num_classes: int, in_channels: int) -> nn.Module:
    attention = AttentionPlan(model.attention, _stages(model))
    if model.backbone in MOBILENETS:
        shape = MobileNetPlan(width=model.width, stem=model.stem or "imagenet")
        return MobileNetV1(shape, attention, num_classes, in_channels)
    network = ResNet(_resnet_plan(model), attention, num_classes, in_channels)
    if model.pretrained:
        load_published_weights(network, model.backbone, in_channels)
    return network


def _stages(model: ModelSpec) -> frozenset[int]:
    """The stages that carry attention: those the spec names, or all that can."""
    if model.stages is not None:
        return frozenset(model.stages)
    last = stage_count(model.backbone)
    assert last is not None, "only timm's networks keep their stages to themselves"
    return frozenset(range(1, last + (model.attention.placement == "block")))


def _resnet_plan(model: ModelSpec) -> ResNetPlan:
    if model.backbone in CIFAR_RESNETS:
        blocks = (int(model.backbone.removeprefix("cifar_resnet")) - 2) // 6
        return ResNetPlan(
            block="basic",
            depths=(blocks,) * 3,
            widths=(16, 32, 64),
            stem_width=16,
            stem="cifar",
            shortcut="padding",
        )
    plan = RESNET_PLANS[model.backbone]
    return replace(plan, stem=model.stem or "imagenet", stride_in_1x1=model.stride_in_1x1)
