"""From what a spec says about the network to the network."""

from dataclasses import replace

from torch import nn

from cbam_core.networks.attach import AttentionPlan
from cbam_core.networks.names import CIFAR_RESNETS, stage_count
from cbam_core.networks.resnet import ResNet, ResNetPlan
from cbam_core.spec import ModelSpec

RESNET_PLANS: dict[str, ResNetPlan] = {
    "resnet18": ResNetPlan(block="basic", depths=(2, 2, 2, 2)),
    "resnet34": ResNetPlan(block="basic", depths=(3, 4, 6, 3)),
    "resnet50": ResNetPlan(block="bottleneck", depths=(3, 4, 6, 3)),
    "resnet101": ResNetPlan(block="bottleneck", depths=(3, 4, 23, 3)),
    "resnet152": ResNetPlan(block="bottleneck", depths=(3, 8, 36, 3)),
}
"""The networks of ImageNet's residual family, with their ImageNet stem."""


def build_network(model: ModelSpec, num_classes: int, in_channels: int = 3) -> nn.Module:
    """The network that `model` describes: images N in_channels H W in, class scores N num_classes out.

    Weights start from torch's global random generator. Inside `torch.device("meta")` nothing is allocated.
    """
    attention = AttentionPlan(model.attention, _stages(model))
    return ResNet(_resnet_plan(model), attention, num_classes, in_channels)


def _stages(model: ModelSpec) -> frozenset[int]:
    """The stages that carry attention."""
    return frozenset(model.stages or range(1, stage_count(model.backbone) + 1))


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
    return replace(RESNET_PLANS[model.backbone], stem=model.stem or "imagenet")
