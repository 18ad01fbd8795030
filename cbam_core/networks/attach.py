"""Where attention goes in a network: one answer for every family of networks."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cbam_core.attention import Attention, attention_from_spec
from cbam_core.attention.options import Options


@dataclass(frozen=True)
class AttentionPlan:
    """Which module stands where. `stages` counts from 1.

    Most modules stand at the end of a block, on the branch, before the shortcut is added; some (BAM) stand between
    the stages. Where nothing stands the plan gives nn.Identity, which has no weights and costs nothing.
    """

    options: Options
    stages: frozenset[int]

    def in_block(self, stage: int, channels: int) -> nn.Module:
        """The module for the end of a block of `stage` with so many channels."""
        return self._made(channels) if self.options.placement == "block" and stage in self.stages else nn.Identity()

    def after_stage(self, stage: int, channels: int) -> nn.Module:
        """The module for the map that leaves `stage` with so many channels."""
        return self._made(channels) if self.options.placement == "stage" and stage in self.stages else nn.Identity()

    def _made(self, channels: int) -> nn.Module:
        return attention_from_spec(self.options, channels)


def residual(norm: nn.Module, attention: nn.Module, x: Tensor, shortcut: Tensor) -> Tensor:
    """The end of a residual block, relu(attention(norm(x)) + shortcut); maps N C H W."""
    if isinstance(attention, Attention):
        return attention.residual(x, shortcut, norm)
    refined: Tensor = attention(norm(x))
    return torch.relu_(refined + shortcut)


def start_backbone(network: nn.Module) -> None:
    """He's normal rule, fan-out, for the convolutions of the backbone; attention modules have started themselves."""
    if isinstance(network, Attention):
        return
    if isinstance(network, nn.Conv2d):
        nn.init.kaiming_normal_(network.weight, mode="fan_out", nonlinearity="relu")
    for child in network.children():
        start_backbone(child)
