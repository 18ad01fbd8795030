"""Your own images, in ImageNet's layout: root/train/<class>/*.jpg, with val/ and test/ beside train/ or without.

Either decoded once, by many threads, and held as uint8 like every other dataset, for what fits into memory; or left
where they are and decoded whenever a batch wants them.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from cbam_core.image_folders.layout import EXPECTED, PartName, layout_of, warn_of_unread
from cbam_core.image_folders.listing import ClassFolders, some
from cbam_core.image_folders.names import SUFFIXES
from cbam_core.spec import DataSpec
from workers.data.datasets.base import Dataset, Order, Split, channel_statistics
from workers.data.datasets.decoding import decode
from workers.data.datasets.folder_parts import Files, FolderParts, divide
from workers.data.datasets.identity import names_digest

logger = logging.getLogger(__name__)
T = TypeVar("T")
STATISTICS_IMAGES = 896
"""Where the images stay on disk, mean and deviation are those of so many of them, evenly spread."""
TRIED_IMAGES = 128
"""So many images of val and of test, evenly spread, are decoded too: what is damaged fails before it trains."""


@dataclass(frozen=True)
class ImageFiles:
    """Images on disk, decoded whenever they are taken.

    `names` holds all paths in one string of bytes, which end at `ends`: tensors, so that the processes that read
    share one copy of a million names.
    """

    names: Tensor
    ends: Tensor
    labels: Tensor
    origin: Tensor
    root: Path
    image_size: int
    roots: DataRoots
    crop_pct: float = 1.0

    cuts = True

    @classmethod
    def of(
        cls, root: Path, files: Files, origin: Tensor, *, image_size: int, crop_pct: float, roots: DataRoots
    ) -> Self:
        """These files below `root`, each with its class."""
        names = [os.fsencode(path) for path, _ in files]
        ends = torch.tensor([len(name) for name in names]).cumsum(0)
        characters = torch.from_numpy(np.frombuffer(b"".join(names), np.uint8).copy())
        labels = torch.tensor([label for _, label in files])
        return cls(characters, ends, labels, origin, root, image_size, roots, crop_pct)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C H W"""
        return 3, self.image_size, self.image_size

    def paths(self) -> list[str]:
        """Below the dataset's root."""
        return [os.path.relpath(self._path(index), self.root) for index in range(len(self))]

    def take(self, order: Order) -> Tensor:
        """uint8 N C H W: the middle of each image, or where `crops` says so, a random part of the whole."""
        images = torch.empty(len(order), *self.shape, dtype=torch.uint8)
        crops = [None] * len(order) if order.crops is None else order.crops.unbind()
        for place, (index, crop) in enumerate(zip(order.indices.tolist(), crops, strict=True)):
            pixels = decode(self._path(index), self.image_size, crop, crop_pct=self.crop_pct, roots=self.roots)
            images[place] = torch.from_numpy(pixels)
        return images

    def to(self, _device: torch.device) -> Self:
        """Themselves: they are on disk."""
        return self

    def _path(self, index: int) -> Path:
        start = int(self.ends[index - 1]) if index else 0
        return Path(os.fsdecode(self.names[start : int(self.ends[index])].numpy().tobytes()))


def load_imagefolder(root: Path, data: DataSpec, *, roots: DataRoots, with_test: bool = True) -> Dataset:
    """All images below `root`, at `data.image_size`, three channels; classes are the folders' names, in order.

    Those of val and test are cropped to `data.crop_pct` (see `decode`), those to train on are not.
    Raises DataError, with what to do, for a wrong layout, an unreadable image, a link that leads out of `roots`, or
    more than memory holds.
    """
    return in_memory(root, _list(root, data, roots, with_test=with_test), data, roots=roots)


def open_imagefolder(root: Path, data: DataSpec, *, roots: DataRoots, with_test: bool = True) -> Dataset:
    """The same, left on disk. Raises DataError likewise, but of the images only a sample is read."""
    return on_disk(root, _list(root, data, roots, with_test=with_test), data, roots=roots)


def in_memory(root: Path, parts: FolderParts, data: DataSpec, *, roots: DataRoots) -> Dataset:
    """The files of all parts, decoded; they are named by their paths below `root`. Raises DataError."""
    check_memory(sum(map(len, parts.files.values())) * 3 * data.image_size**2)
    read = {
        name: replace(
            _read(files, data.image_size, crop_pct(name, data), roots=roots),
            positions=parts.origins[name],
            files=tuple(os.path.relpath(path, root) for path, _ in files),
        )
        for name, files in parts.files.items()
    }
    dataset = Dataset.of(read["train"], read["val"], read.get("test"), parts.classes, parts.became)
    return replace(dataset, names=_digest(root, parts))


def on_disk(root: Path, parts: FolderParts, data: DataSpec, *, roots: DataRoots) -> Dataset:
    """The files of all parts, left where they are; a sample is read. Raises DataError."""
    for name in parts.files.keys() - {"train"}:
        _read(spread(parts.files[name], TRIED_IMAGES), data.image_size, crop_pct(name, data), roots=roots)
    sample = _read(spread(parts.files["train"], STATISTICS_IMAGES), data.image_size, roots=roots)
    opened = {
        name: ImageFiles.of(
            root,
            files,
            parts.origins[name],
            image_size=data.image_size,
            crop_pct=crop_pct(name, data),
            roots=roots,
        )
        for name, files in parts.files.items()
    }
    mean, std = channel_statistics(sample.images)
    return Dataset(
        opened["train"],
        opened["val"],
        opened.get("test"),
        parts.classes,
        mean=mean,
        std=std,
        became=parts.became,
        names=_digest(root, parts),
    )


def _digest(root: Path, parts: FolderParts) -> str:
    """Of the names in each part: a file that goes from one to another makes other data."""
    digests = {name: names_digest(root, (path for path, _ in files)) for name, files in parts.files.items()}
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def crop_pct(part: PartName, data: DataSpec) -> float:
    """The share of the images of a part that is seen: of those to train on, all."""
    return 1.0 if part == "train" else data.crop_pct


def _list(root: Path, data: DataSpec, roots: DataRoots, *, with_test: bool) -> FolderParts:
    """The images of every part, and the classes' names.

    Nothing is listed that lies out of `roots`: its names alone would tell.
    """
    layout = layout_of(root, data.val, roots, with_test=with_test)
    warn_of_unread(root, layout)
    classes = _class_names(layout.folders["train"], roots)
    return divide(layout, classes, lambda folder: _files(folder, classes, roots), data.val, roots=roots)


def _class_names(folder: Path, roots: DataRoots) -> tuple[str, ...]:
    """The names of the classes in a folder of training images. Raises DataError for fewer than two."""
    folders = ClassFolders(folder, roots)
    folders.check_names()
    return folders.names


def _files(folder: Path, classes: tuple[str, ...], roots: DataRoots) -> Files:
    """Every image below `folder` with its class, in a fixed order."""
    folders = ClassFolders(folder, roots)
    there = set(folders.names)
    if unknown := sorted(there - set(classes)):
        raise DataError(f"{folder} has classes that the training images do not have: {some(unknown)}")
    files = [(path, label) for label, name in enumerate(classes) if name in there for path in folders.images(name)]
    left_out = f"; left out: {folders.summary()}" if folders.left_out else ""
    if not files:
        raise DataError(f"{folder} has no images ({', '.join(sorted(SUFFIXES))}){left_out}; {EXPECTED}")
    if empty := sorted(there - {classes[label] for _, label in files}):
        raise DataError(
            f"{folder} has folders without an image: {some(empty)}{left_out}; copy their images again, or delete them"
        )
    if untested := sorted(set(classes) - there):
        logger.warning("%s has no images of %d classes: %s", folder, len(untested), some(untested))
    if left_out:
        logger.warning("%s: %d images are read%s", folder, len(files), left_out)
    return files


def spread(files: Sequence[T], most: int) -> Sequence[T]:
    """All files, or `most` of them, evenly spread."""
    count = min(most, len(files))
    return [files[place * len(files) // count] for place in range(count)]


def check_memory(needed: int) -> None:
    """Raise DataError where the decoded images take more than half of the memory that is free."""
    available = psutil.virtual_memory().available
    if needed > available // 2:
        raise DataError(
            f"the images take {needed / 2**30:.1f} GiB of the {available / 2**30:.1f} GiB that are free; set "
            "data.workers_per_rank to leave them on disk, or choose a smaller image_size"
        )


def _read(files: Files, image_size: int, crop_pct: float = 1.0, *, roots: DataRoots) -> Split:
    images = torch.empty(len(files), 3, image_size, image_size, dtype=torch.uint8)

    def read(number: int) -> None:
        images[number] = torch.from_numpy(decode(files[number][0], image_size, crop_pct=crop_pct, roots=roots))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(read, range(len(files))))
    return Split(images, torch.tensor([label for _, label in files], dtype=torch.int64))
