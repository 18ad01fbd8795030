"""Your own images, in ImageNet's layout: root/train/<class>/*.jpg and root/val/<class>/*.jpg.

Either decoded once, by many threads, and held as uint8 like every other dataset, for what fits into memory; or left
where they are and decoded whenever a batch wants them.
"""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import psutil
import torch
from torch import Tensor

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from cbam_core.image_folders.listing import ClassFolders, some
from cbam_core.image_folders.names import SUFFIXES
from workers.data.datasets.base import Dataset, Order, Split, channel_statistics
from workers.data.datasets.decoding import decode
from workers.data.datasets.identity import names_digest

logger = logging.getLogger(__name__)
STATISTICS_IMAGES = 896
"""Where the images stay on disk, mean and deviation are those of so many of them, evenly spread."""
TRIED_IMAGES = 128
"""So many of the images to test on, evenly spread, are decoded beside those: what is damaged fails before it trains."""
Files = Sequence[tuple[Path, int]]
"""Paths, each with its class."""
_TEST_NAMES = ("val", "test")
_LAYOUT = "expected train/<class>/<image> and val/<class>/<image>"


@dataclass(frozen=True)
class ImageFiles:
    """Images on disk, decoded whenever they are taken.

    `names` holds all paths in one string of bytes, which end at `ends`: tensors, so that the processes that read
    share one copy of a million names.
    """

    names: Tensor
    ends: Tensor
    labels: Tensor
    image_size: int
    roots: DataRoots
    crop_pct: float = 1.0

    cuts = True

    @classmethod
    def of(cls, files: Files, image_size: int, crop_pct: float = 1.0, *, roots: DataRoots) -> Self:
        """These files, each with its class."""
        names = [os.fsencode(path) for path, _ in files]
        ends = torch.tensor([len(name) for name in names]).cumsum(0)
        characters = torch.from_numpy(np.frombuffer(b"".join(names), np.uint8).copy())
        return cls(characters, ends, torch.tensor([label for _, label in files]), image_size, roots, crop_pct)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C H W"""
        return 3, self.image_size, self.image_size

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


def load_imagefolder(root: Path, image_size: int, crop_pct: float = 1.0, *, roots: DataRoots) -> Dataset:
    """All images below `root`, at `image_size`, three channels; classes are the folders' names, in order.

    The images to test on are cropped to `crop_pct` (see `decode`), those to train on are not.
    Raises DataError, with what to do, for a wrong layout, an unreadable image, a link that leads out of `roots`, or
    more than memory holds.
    """
    train, test, classes = _list(root, roots)
    _check_memory((len(train) + len(test)) * 3 * image_size**2)
    tested = _read(test, image_size, crop_pct, roots=roots)
    dataset = Dataset.of(_read(train, image_size, roots=roots), tested, classes)
    return replace(dataset, names=_digest(root, train, test))


def open_imagefolder(root: Path, image_size: int, crop_pct: float = 1.0, *, roots: DataRoots) -> Dataset:
    """The same, left on disk. Raises DataError likewise, but of the images only a sample is read."""
    train, test, classes = _list(root, roots)
    _read(_spread(test, TRIED_IMAGES), image_size, crop_pct, roots=roots)
    mean, std = channel_statistics(_read(_spread(train, STATISTICS_IMAGES), image_size, roots=roots).images)
    tested = ImageFiles.of(test, image_size, crop_pct, roots=roots)
    names = _digest(root, train, test)
    return Dataset(ImageFiles.of(train, image_size, roots=roots), tested, classes, mean, std, names)


def _digest(root: Path, *parts: Files) -> str:
    return names_digest(root, (path for files in parts for path, _ in files))


def _list(root: Path, roots: DataRoots) -> tuple[Files, Files, tuple[str, ...]]:
    """The images to train on and to test on, and the classes' names.

    Nothing is listed that lies out of `roots`: its names alone would tell.
    """
    train = root / "train"
    test = next((root / name for name in _TEST_NAMES if (root / name).is_dir()), None)
    if not train.is_dir() or test is None:
        raise DataError(f"{root} has no train and val folder, but {ClassFolders(root, roots).contents()}; {_LAYOUT}")
    classes = _class_names(train, roots)
    return _files(train, classes, roots), _files(test, classes, roots), classes


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
        raise DataError(f"{folder} has no images ({', '.join(sorted(SUFFIXES))}){left_out}; {_LAYOUT}")
    if empty := sorted(there - {classes[label] for _, label in files}):
        raise DataError(
            f"{folder} has folders without an image: {some(empty)}{left_out}; copy their images again, or delete them"
        )
    if untested := sorted(set(classes) - there):
        logger.warning("%s has no images of %d classes: %s", folder, len(untested), some(untested))
    if left_out:
        logger.warning("%s: %d images are read%s", folder, len(files), left_out)
    return files


def _spread(files: Files, most: int) -> Files:
    """All files, or `most` of them, evenly spread."""
    count = min(most, len(files))
    return [files[place * len(files) // count] for place in range(count)]


def _check_memory(needed: int) -> None:
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
