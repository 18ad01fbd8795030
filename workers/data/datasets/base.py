"""A dataset: uint8 images and their labels, in memory or on disk, and the statistics that may normalise them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from cbam_core.datasets import PartSizes
from cbam_core.errors import DataError
from cbam_core.image_folders.layout import PartName
from cbam_core.normalisation import Normalisation
from cbam_core.seeding import seed_of


@dataclass(frozen=True)
class Order:
    """Which images to bring: indices in N, and for images that are cut where they are read, N 4 numbers in 0..1."""

    indices: Tensor
    crops: Tensor | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def part(self, which: slice) -> Self:
        """The same for some of the images."""
        return type(self)(self.indices[which], None if self.crops is None else self.crops[which])


class Images(Protocol):
    """The images of one split, wherever they are, and their class indices as int64 in N."""

    @property
    def labels(self) -> Tensor:
        """N"""

    @property
    def shape(self) -> tuple[int, int, int]:
        """C H W"""

    @property
    def origin(self) -> Tensor:
        """Where each image stands in the part of the dataset that it was read from: int64, N."""

    @property
    def cuts(self) -> bool:
        """Whether `take` cuts a random part out of the image as it was taken, which is more than it would bring."""

    def __len__(self) -> int: ...

    def paths(self) -> list[str] | None:
        """The file of each image, below the dataset's root; None for images of no files of their own."""

    def take(self, order: Order) -> Tensor:
        """uint8 N C H W"""

    def to(self, device: torch.device) -> Self:
        """The same images, on `device` where they are in memory."""


@dataclass(frozen=True)
class Split:
    """Images in memory, as uint8 in N C H W, and their class indices as int64 in N.

    `positions` are the `origin` of images that are some of a part, and `files` their paths below the dataset's root.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor | None = None
    files: tuple[str, ...] | None = None

    cuts = False

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise DataError(f"{len(self.images)} images but {len(self.labels)} labels")

    @property
    def origin(self) -> Tensor:
        """N"""
        return torch.arange(len(self)) if self.positions is None else self.positions

    def paths(self) -> list[str] | None:
        """Below the dataset's root."""
        return None if self.files is None else list(self.files)

    def some(self, mask: Tensor) -> Self:
        """Those where `mask` (N) is true."""
        files = None
        if self.files is not None:
            files = tuple(file for file, taken in zip(self.files, mask.tolist(), strict=True) if taken)
        return replace(
            self, images=self.images[mask], labels=self.labels[mask], positions=self.origin[mask], files=files
        )

    def resized(self, size: int) -> Self:
        """The same images, `size` × `size`."""
        return replace(self, images=resize(self.images, size))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C H W"""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def take(self, order: Order) -> Tensor:
        """uint8 N C H W, on the device where the images are."""
        return self.images[order.indices]

    def to(self, device: torch.device) -> Self:
        """The same images on `device`."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True)
class Dataset:
    """Disjoint images: to train on, to choose by, and to report on, if there are any for that.

    `mean` and `std` are per channel, of the training images in 0..1. `became` says of each part where it comes from,
    `names` is a digest of the files' names, where the images come from a folder of them.
    """

    train: Images
    val: Images
    test: Images | None
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    became: Mapping[str, str] = field(default_factory=dict)
    names: str | None = None
    groups: Mapping[PartName, Sequence[str]] | None = None
    """Of each part, the group of each image, where a column of a table says it."""

    @classmethod
    def of(
        cls, train: Split, val: Split, test: Split | None, classes: tuple[str, ...], became: Mapping[str, str]
    ) -> Self:
        """A dataset normalised by the statistics of its own training images."""
        mean, std = channel_statistics(train.images)
        return cls(train, val, test, classes, mean, std, became)

    @property
    def split(self) -> str:
        """How many images each part has and where they come from, in a line."""
        test = None if self.test is None else len(self.test)
        return PartSizes(len(self.train), len(self.val), test).words(self.became)

    @property
    def normalisation(self) -> Normalisation:
        """To mean 0 and variance 1 per channel."""
        return Normalisation(self.mean, self.std)

    @property
    def num_classes(self) -> int:
        """How many scores the network gives."""
        return len(self.classes)

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same where a training goes on, as plain values for its checkpoint (`identity.py`)."""
        images = {"train": len(self.train), "val": len(self.val)}
        if self.test is not None:
            images["test"] = len(self.test)
        return {"classes": list(self.classes), "images": images, "names": self.names}

    @property
    def fingerprint(self) -> int:
        """63 bits of what all ranks must have alike: the identity, and which images are val."""
        val = hashlib.sha256(self.val.origin.cpu().numpy().tobytes()).hexdigest()
        return seed_of(json.dumps(self.identity, sort_keys=True), val)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """C H W"""
        return self.train.shape

    def to(self, device: torch.device) -> Self:
        """The same images, on `device` where they are in memory."""
        test = None if self.test is None else self.test.to(device)
        return replace(self, train=self.train.to(device), val=self.val.to(device), test=test)


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
