"""A dataset in memory: uint8 images and their labels, and the statistics that normalise them."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional as F

from cbam_core.errors import DataError


@dataclass(frozen=True)
class Split:
    """Images as uint8 in N C H W and their class indices as int64 in N."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DataError(f"{len(self.images)} images but {len(self.labels)} labels")

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Self:
        """The same images on `device`."""
        return type(self)(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Disjoint images to train on and to test on. `mean` and `std` are per channel, of the training images in 0..1."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, train: Split, test: Split, classes: tuple[str, ...]) -> Self:
        """A dataset normalised by the statistics of its own training images."""
        mean, std = channel_statistics(train.images)
        return cls(train, test, classes, mean, std)

    @property
    def num_classes(self) -> int:
        """How many scores the network gives."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """C H W"""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def to(self, device: torch.device) -> Self:
        """The same images on `device`."""
        return type(self)(self.train.to(device), self.test.to(device), self.classes, self.mean, self.std)


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 N C H W, as shares of 255; exact, by counting the 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.unbind(1):
        shares = torch.bincount(channel.flatten(), minlength=256).double() / channel.numel()
        mean = (shares * values).sum()
        means.append(mean.item())
        deviations.append(max(1e-3, (shares * (values - mean) ** 2).sum().sqrt().item()))
    return tuple(means), tuple(deviations)


def resize(images: Tensor, size: int) -> Tensor:
    """uint8 N C H W to uint8 N C size size, bilinear, antialiased where it shrinks."""
    if images.shape[-2:] == (size, size):
        return images
    larger = F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False, antialias=True)
    return larger.round().clamp(0, 255).to(torch.uint8)
