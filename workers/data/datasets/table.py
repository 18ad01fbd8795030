"""Your own images, as a table lists them: by their paths, or encoded in the table itself.

Files are read as those of a folder are, at once or by the step. Images in the table stay encoded in memory where
`workers_per_rank` reads ahead: Parquet has no way to one row alone.
"""

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from cbam_core.image_folders.layout import PartName
from cbam_core.spec import DataSpec
from cbam_core.tables.parts import columns_of, group_of
from cbam_core.tables.reading import Rows, read_rows
from workers.data.datasets.base import Dataset, Order, Split, channel_statistics
from workers.data.datasets.decoding import decode_open
from workers.data.datasets.folder_parts import FolderParts
from workers.data.datasets.imagefolder import (
    STATISTICS_IMAGES,
    TRIED_IMAGES,
    check_memory,
    crop_pct,
    in_memory,
    on_disk,
    spread,
)
from workers.data.datasets.table_parts import Parts, divide_rows

MOST_LOOKED_FOR = 20_000
"""So many files, evenly spread, are looked for before the training."""
_NAMED = 3


@dataclass(frozen=True)
class EncodedImages:
    """Encoded images in memory, decoded whenever they are taken: all bytes in one tensor, which end at `ends`.

    Tensors, so that the processes that read share one copy.
    """

    encoded: Tensor
    ends: Tensor
    labels: Tensor
    origin: Tensor
    image_size: int
    crop_pct: float = 1.0
    files: tuple[str, ...] | None = None

    cuts = True

    @classmethod
    def of(cls, rows: Rows, part: Tensor, *, image_size: int, crop_pct: float) -> Self:
        """Those of the rows of a part."""
        assert rows.images is not None, "they are in the table"
        chosen = part.tolist()
        images = [rows.images[row] for row in chosen]
        ends = torch.tensor([len(image) for image in images]).cumsum(0)
        encoded = torch.from_numpy(np.frombuffer(b"".join(images), np.uint8).copy())
        names = None if rows.names is None else tuple(rows.names[row] for row in chosen)
        return cls(encoded, ends, torch.tensor(rows.labels)[part], part, image_size, crop_pct, names)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """C H W"""
        return 3, self.image_size, self.image_size

    def paths(self) -> list[str] | None:
        """As the table names its images."""
        return None if self.files is None else list(self.files)

    def take(self, order: Order) -> Tensor:
        """uint8 N C H W: the middle of each image, or where `crops` says so, a random part of the whole."""
        images = torch.empty(len(order), *self.shape, dtype=torch.uint8)
        crops = [None] * len(order) if order.crops is None else order.crops.unbind()
        for place, (index, crop) in enumerate(zip(order.indices.tolist(), crops, strict=True)):
            images[place] = self._decoded(index, crop)
        return images

    def all(self) -> Tensor:
        """All of them, uint8 N C H W, decoded by many threads."""
        images = torch.empty(len(self), *self.shape, dtype=torch.uint8)

        def read(index: int) -> None:
            images[index] = self._decoded(index, None)

        with ThreadPoolExecutor(os.cpu_count()) as threads:
            list(threads.map(read, range(len(self))))
        return images

    def to(self, _device: torch.device) -> Self:
        """Themselves: they are decoded on the CPU."""
        return self

    def some(self, places: Sequence[int]) -> Self:
        """Those at these places."""
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), self.ends])
        pieces = [self.encoded[int(starts[place]) : int(starts[place + 1])] for place in places]
        ends = torch.tensor([len(piece) for piece in pieces]).cumsum(0)
        chosen = torch.tensor(list(places))
        files = None if self.files is None else tuple(self.files[place] for place in places)
        return replace(
            self,
            encoded=torch.cat(pieces),
            ends=ends,
            labels=self.labels[chosen],
            origin=self.origin[chosen],
            files=files,
        )

    def _decoded(self, index: int, crop: Tensor | None) -> Tensor:
        start = int(self.ends[index - 1]) if index else 0
        data = io.BytesIO(self.encoded[start : int(self.ends[index])].numpy().tobytes())
        named = "" if self.files is None else f" ({self.files[index]})"
        name = f"the image of row {int(self.origin[index]) + 1}{named}"
        return torch.from_numpy(decode_open(data, self.image_size, crop, crop_pct=self.crop_pct, name=name))


def load_table(root: Path, data: DataSpec, *, roots: DataRoots, with_test: bool = True) -> Dataset:
    """The images that the table at `root` lists, at `data.image_size`, three channels.

    Raises DataError, with what to do, for what `read_rows` refuses, a file that is not there or lies out of `roots`, an
    unreadable image, or more than memory holds.
    """
    rows = read_rows(root, columns_of(data), roots, group=group_of(data))
    if rows.paths is not None:
        _check_files(rows.paths, roots)
    parts, became = divide_rows(rows, data.val, roots, with_test=with_test)
    dataset = (
        _of_files(rows, parts, became, data, roots) if rows.paths is not None else _encoded(rows, parts, became, data)
    )
    groups = None if rows.groups is None else {name: tuple(_at(rows.groups, part)) for name, part in parts.items()}
    return replace(dataset, names=_digest(rows, parts), groups=groups)


def _of_files(rows: Rows, parts: Parts, became: Mapping[str, str], data: DataSpec, roots: DataRoots) -> Dataset:
    assert rows.paths is not None, "they are files"
    files = {name: [(rows.paths[row], rows.labels[row]) for row in part.tolist()] for name, part in parts.items()}
    load = on_disk if data.workers_per_rank else in_memory
    return load(rows.folder, FolderParts(files, parts, rows.classes, became), data, roots=roots)


def _encoded(rows: Rows, parts: Parts, became: Mapping[str, str], data: DataSpec) -> Dataset:
    """Images in the table: decoded at once, or as they are taken; then a sample is tried."""
    images = {
        name: EncodedImages.of(rows, part, image_size=data.image_size, crop_pct=crop_pct(name, data))
        for name, part in parts.items()
    }
    if not data.workers_per_rank:
        check_memory(sum(map(len, images.values())) * 3 * data.image_size**2)
        read = {name: Split(of.all(), of.labels, of.origin, of.files) for name, of in images.items()}
        return Dataset.of(read["train"], read["val"], read.get("test"), rows.classes, became)
    tried = {name: of.some(spread(range(len(of)), _tried(name))).all() for name, of in images.items()}
    mean, std = channel_statistics(tried["train"])
    return Dataset(images["train"], images["val"], images.get("test"), rows.classes, mean=mean, std=std, became=became)


def _tried(part: PartName) -> int:
    return STATISTICS_IMAGES if part == "train" else TRIED_IMAGES


def _check_files(paths: Sequence[Path], roots: DataRoots) -> None:
    """Raise DataError where files are not there, or lie out of the data roots, with the first of them."""
    places = spread(range(len(paths)), MOST_LOOKED_FOR)
    for path in {os.path.dirname(paths[place]) for place in places}:
        roots.check(path)
    missing = [place for place in places if not paths[place].is_file()]
    if missing:
        named = ", ".join(f"{paths[place]} (row {place + 1})" for place in missing[:_NAMED])
        raise DataError(
            f"{len(missing)} of {len(places)} images of the table are not there: {named}; paths are below the table's "
            "folder, or absolute"
        )


def _digest(rows: Rows, parts: Parts) -> str:
    """Of what each part holds: the names, or the bytes, of its images, and their classes."""
    digest = hashlib.sha256()
    for name, part in sorted(parts.items()):
        for row in part.tolist():
            key = _key(rows, row)
            digest.update(json.dumps([name, key, rows.classes[rows.labels[row]]]).encode() + b"\n")
    return digest.hexdigest()


def _key(rows: Rows, row: int) -> str:
    if rows.paths is not None:
        return os.path.relpath(rows.paths[row], rows.folder)
    assert rows.images is not None, "they are in the table"
    return hashlib.sha256(rows.images[row]).hexdigest()


def _at(values: Sequence[str], part: Tensor) -> list[str]:
    return [values[row] for row in part.tolist()]
