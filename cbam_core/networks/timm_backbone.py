"""Any network of timm's that passes maps on, with attention on the branches of its blocks."""

from collections.abc import Callable

from torch import nn

from cbam_core.attention import Attention
from cbam_core.backbones import TIMM_PREFIX
from cbam_core.errors import AttentionNotSupported
from cbam_core.networks.attach import AttentionPlan
from cbam_core.networks.pretrained import create_timm
from cbam_core.networks.timm_attach import attach
from cbam_core.networks.timm_attach import attend as _attend  # noqa: F401  # networks pickled by version 0.1 name it
from cbam_core.networks.timm_blocks import attach_behind_blocks, find_blocks
from cbam_core.networks.timm_sites import find_sites
from cbam_core.semantics import CURRENT, Semantics
from cbam_core.spec import ModelSpec


def timm_builder(
    model: ModelSpec, num_classes: int, in_channels: int, *, semantics: Semantics = CURRENT
) -> Callable[[], nn.Module]:
    """What builds timm's network with attention in each of its blocks (BAM: between the stages).

    The blocks are found now, from a network on the meta device, and what is returned builds one network and no other.
    A stage is what lies at one resolution. Under semantics 1 attention stands behind each block, as it did.
    Raises UnknownBackbone or AttentionNotSupported; what is returned, also WeightsUnavailable.
    """
    name = model.backbone.removeprefix(TIMM_PREFIX)
    attach_to: Callable[[nn.Module], None] = _nothing
    if model.attention.type != "none":
        attach_to = _behind_blocks(model, name) if semantics == 1 else _on_branches(model, name)

    def build() -> nn.Module:
        network = create_timm(name, pretrained=model.pretrained, num_classes=num_classes, in_channels=in_channels)
        attach_to(network)
        return network

    return build


def _nothing(_network: nn.Module) -> None:
    """Attach no attention."""


def _behind_blocks(model: ModelSpec, name: str) -> Callable[[nn.Module], None]:
    blocks = find_blocks(name)
    plan = _plan(model, max(block.stage for block in blocks))
    return lambda network: attach_behind_blocks(network, blocks, plan)


def _on_branches(model: ModelSpec, name: str) -> Callable[[nn.Module], None]:
    sites = find_sites(name)
    last_of_stage = {site.stage: site for site in sites}
    plan = _plan(model, max(last_of_stage))

    def attach_to(network: nn.Module) -> None:
        for site in sites:
            in_block = plan.in_block(site.stage, site.feature.channels)
            if isinstance(in_block, Attention):
                attach(network, site.module, site.place, in_block, channels_last=site.feature.channels_last)
        for stage, site in last_of_stage.items():
            after = plan.after_stage(stage, site.end_feature.channels)
            if isinstance(after, Attention):
                attach(network, site.end, "output", after, channels_last=site.end_feature.channels_last)

    return attach_to


def _plan(model: ModelSpec, last: int) -> AttentionPlan:
    """Where attention goes in a network of so many stages."""
    stages = frozenset(model.stages or range(1, last + (model.attention.placement == "block")))
    if max(stages) > last:
        raise AttentionNotSupported(f"{model.backbone} has stages 1 to {last}; `stages` names {max(stages)}")
    return AttentionPlan(model.attention, stages)
