"""Residual networks (He et al. 2016; ResNeXt: Xie et al. 2017; wide: Zagoruyko 2016) with attention on the branch.

Layers are named as in torchvision, so that published weights fit; the module of a block is `attention`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbam_core.networks.attach import AttentionPlan, residual, start_backbone


@dataclass(frozen=True, kw_only=True)
class ResNetPlan:
    """The shape of a residual network, all but its attention and its head.

    block          basic: two 3×3 convolutions; bottleneck: 1×1, 3×3, 1×1 with four times the width at its end
    depths         blocks of each stage
    widths         channels inside the blocks of each stage
    stem_width     channels of the first convolution
    stem           imagenet: 7×7 stride 2 and a max-pool; cifar: one 3×3 at full resolution
    groups         groups of the 3×3 convolution in a bottleneck (ResNeXt)
    group_width    channels of each group in the first stage, 64 where groups is 1
    stride_in_1x1  a bottleneck halves the map in its first 1×1 convolution (the paper) or in its 3×3 (everyone since)
    shortcut       how the shortcut changes shape: a projection, or subsampling and zero channels (option A, CIFAR)
    """

    block: Literal["basic", "bottleneck"]
    depths: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_width: int = 64
    stem: Literal["imagenet", "cifar"] = "imagenet"
    groups: int = 1
    group_width: int = 64
    stride_in_1x1: bool = False
    shortcut: Literal["projection", "padding"] = "projection"

    @property
    def expansion(self) -> int:
        """Channels at the end of a block per channel inside it."""
        return 4 if self.block == "bottleneck" else 1

    def inner_width(self, width: int) -> int:
        """Channels of the 3×3 convolution of a bottleneck whose stage is so wide."""
        return width * self.group_width // 64 * self.groups


class PaddedShortcut(nn.Module):
    """He et al.'s option A: take every second place, add channels of zeros. No weights."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.added = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:  # N C H W -> N C+added H/stride W/stride
        """The subsampled map with zeros behind its channels."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))


class BasicBlock(nn.Module):
    """3×3, 3×3, attention, + shortcut, ReLU."""

    def __init__(self, shape: ResNetPlan, in_channels: int, width: int, stride: int, attention: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.attention = attention
        self.downsample = _shortcut(shape, in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:  # N C H W -> N width H/stride W/stride
        """One block."""
        branch = torch.relu_(self.bn1(self.conv1(x)))
        return residual(self.bn2, self.attention, self.conv2(branch), self.downsample(x))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1, attention, + shortcut, ReLU."""

    def __init__(self, shape: ResNetPlan, in_channels: int, width: int, stride: int, attention: nn.Module) -> None:
        super().__init__()
        inner, out_channels = shape.inner_width(width), width * shape.expansion
        first, second = (stride, 1) if shape.stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, second, padding=1, groups=shape.groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.attention = attention
        self.downsample = _shortcut(shape, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:  # N C H W -> N 4·width H/stride W/stride
        """One block."""
        branch = torch.relu_(self.bn1(self.conv1(x)))
        branch = torch.relu_(self.bn2(self.conv2(branch)))
        return residual(self.bn3, self.attention, self.conv3(branch), self.downsample(x))


class ResNet(nn.Module):
    """Stem, stages `layer1` …, average over the map, linear head. Input N in_channels H W, output N num_classes."""

    def __init__(self, shape: ResNetPlan, attention: AttentionPlan, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        imagenet = shape.stem == "imagenet"
        kernel, stride = (7, 2) if imagenet else (3, 1)
        self.conv1 = nn.Conv2d(in_channels, shape.stem_width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(shape.stem_width)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if imagenet else nn.Identity()
        channels = shape.stem_width
        self.stages = range(1, len(shape.depths) + 1)
        for stage in self.stages:
            self.add_module(f"layer{stage}", _stage(shape, attention, stage, channels))
            channels = shape.widths[stage - 1] * shape.expansion
            self.add_module(f"attention{stage}", attention.after_stage(stage, channels))
        self.fc = nn.Linear(channels, num_classes)
        start_backbone(self)

    def forward(self, x: Tensor) -> Tensor:  # N in_channels H W -> N num_classes
        """Class scores, before any softmax."""
        x = self.maxpool(torch.relu_(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = getattr(self, f"attention{stage}")(getattr(self, f"layer{stage}")(x))
        scores: Tensor = self.fc(x.mean((2, 3)))
        return scores


def _stage(shape: ResNetPlan, attention: AttentionPlan, stage: int, in_channels: int) -> nn.Sequential:
    """The blocks of one stage; the first of them halves the map, but in stage 1."""
    block = Bottleneck if shape.block == "bottleneck" else BasicBlock
    width = shape.widths[stage - 1]
    channels = width * shape.expansion
    blocks: list[nn.Module] = []
    for index in range(shape.depths[stage - 1]):
        stride = 2 if index == 0 and stage > 1 else 1
        entering = in_channels if index == 0 else channels
        blocks.append(block(shape, entering, width, stride, attention.in_block(stage, channels)))
    return nn.Sequential(*blocks)


def _shortcut(shape: ResNetPlan, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """What brings a block's input to the shape of its output."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if shape.shortcut == "padding":
        return PaddedShortcut(in_channels, out_channels, stride)
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))
