"""Any network of timm's that passes maps on, with attention on the branches of its blocks."""

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


def build_timm(model: ModelSpec, num_classes: int, in_channels: int, *, semantics: Semantics = CURRENT) -> nn.Module:
    """timm's network with attention in each of its blocks (BAM: after the last block of each stage but the last).

    A stage is what lies at one resolution. Under semantics 1 attention stands behind each block, as it did.
    Raises UnknownBackbone, WeightsUnavailable or AttentionNotSupported.
    """
    name = model.backbone.removeprefix(TIMM_PREFIX)
    network = create_timm(name, pretrained=model.pretrained, num_classes=num_classes, in_channels=in_channels)
    if model.attention.type == "none":
        return network
    if semantics == 1:
        blocks = find_blocks(name)
        attach_behind_blocks(network, blocks, _plan(model, max(block.stage for block in blocks)))
        return network
    sites = find_sites(name)
    last_of_stage = {site.stage: site for site in sites}
    plan = _plan(model, max(last_of_stage))
    for site in sites:
        after_stage = (
            plan.after_stage(site.stage, site.end_feature.channels) if last_of_stage[site.stage] is site else None
        )
        if isinstance(after_stage, Attention):
            attach(network, site.end, "output", after_stage, channels_last=site.end_feature.channels_last)
        in_block = plan.in_block(site.stage, site.feature.channels)
        if isinstance(in_block, Attention):
            attach(network, site.module, site.place, in_block, channels_last=site.feature.channels_last)
    return network


def _plan(model: ModelSpec, last: int) -> AttentionPlan:
    """Where attention goes in a network of so many stages."""
    stages = frozenset(model.stages or range(1, last + (model.attention.placement == "block")))
    if max(stages) > last:
        raise AttentionNotSupported(f"{model.backbone} has stages 1 to {last}; `stages` names {max(stages)}")
    return AttentionPlan(model.attention, stages)
