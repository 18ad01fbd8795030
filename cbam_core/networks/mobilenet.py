"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861) with attention after both halves of its blocks."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from cbam_core.networks.attach import AttentionPlan, start_backbone

WIDTHS = (64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
STAGE_ENDS = (1, 3, 5, 11, 13)
"""How many blocks stand before the end of each stage; the first block of each but the first halves the map."""


@dataclass(frozen=True, kw_only=True)
class MobileNetPlan:
    """The shape of a MobileNetV1. width: alpha, multiplies the channels (rounded down). stem cifar: no stride in it."""

    width: float = 1.0
    stem: Literal["imagenet", "cifar"] = "imagenet"

    def channels(self, published: int) -> int:
        """The channels of a layer that has so many at width 1."""
        return max(1, int(published * self.width))


class DepthwiseSeparable(nn.Module):
    """3×3 depthwise, BN, attention, ReLU; then 1×1 pointwise, BN, attention, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, attention: AttentionPlan, stage: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.attention1 = attention.in_block(stage, in_channels)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.attention2 = attention.in_block(stage, out_channels)

    def forward(self, x: Tensor) -> Tensor:  # N C H W -> N out_channels H/stride W/stride
        """One block."""
        x = torch.relu_(self.attention1(self.bn1(self.conv1(x))))
        return torch.relu_(self.attention2(self.bn2(self.conv2(x))))


class MobileNetV1(nn.Module):
    """Stem, five stages of one resolution each, average, linear head. Input N in_channels H W, output N num_classes."""

    def __init__(self, shape: MobileNetPlan, attention: AttentionPlan, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        channels = shape.channels(32)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, 2 if shape.stem == "imagenet" else 1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.stages = range(1, len(STAGE_ENDS) + 1)
        for stage, first, last in zip(self.stages, (0, *STAGE_ENDS), STAGE_ENDS, strict=False):
            blocks = []
            for index in range(first, last):
                stride = 2 if index == first and stage > 1 else 1
                wider = shape.channels(WIDTHS[index])
                blocks.append(DepthwiseSeparable(channels, wider, stride, attention, stage))
                channels = wider
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            self.add_module(f"attention{stage}", attention.after_stage(stage, channels))
        self.fc = nn.Linear(channels, num_classes)
        start_backbone(self)

    def forward(self, x: Tensor) -> Tensor:  # N in_channels H W -> N num_classes
        """Class scores, before any softmax."""
        x = torch.relu_(self.bn1(self.conv1(x)))
        for stage in self.stages:
            x = getattr(self, f"attention{stage}")(getattr(self, f"layer{stage}")(x))
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores
