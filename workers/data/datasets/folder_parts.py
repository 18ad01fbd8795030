"""The files of train, val and test of a folder of images, those cut off among them."""

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cbam_core.data_roots import DataRoots
from cbam_core.datasets import TEST_FRACTION
from cbam_core.errors import DataError
from cbam_core.image_folders.layout import HELD_OUT, FolderLayout, PartName
from cbam_core.image_folders.listing import some
from cbam_core.spec import ValSpec
from workers.data.splits import cut, joined, val_mask

logger = logging.getLogger(__name__)
Files = Sequence[tuple[Path, int]]
"""Paths, each with its class."""
MOST_SEARCHED = 20_000
"""Files of one folder that are searched for copies: files of one size are read for it."""


@dataclass(frozen=True)
class FolderParts:
    """The files of every part. `origins` says of each where it stands in the folder that it was read from."""

    files: Mapping[PartName, Files]
    origins: Mapping[PartName, Tensor]
    classes: tuple[str, ...]
    became: Mapping[str, str]


def divide(
    layout: FolderLayout,
    classes: tuple[str, ...],
    read: Callable[[Path], Files],
    val: ValSpec | Literal["folder"],
    *,
    roots: DataRoots,
) -> FolderParts:
    """The parts of a dataset; `read` lists the images below a folder. Raises DataError.

    Copies of a file stay in one part of what is cut, and so do the groups of `val`.
    """
    files = {name: read(folder) for name, folder in layout.folders.items()}
    origins = {name: torch.arange(len(of)) for name, of in files.items()}
    if val != "folder" and files.keys() != {"train", "val", "test"}:
        groups = _together(files["train"], layout.folders["train"], val, roots)
        if "test" not in files:
            mask = cut(_labels(files["train"]), TEST_FRACTION, "test", groups=groups)
            _cut_off("test", mask, files, origins)
            groups = None if groups is None else groups[~mask]
        if "val" not in files:
            _cut_off("val", val_mask(_labels(files["train"]), val, groups), files, origins)
        _warn_of_missing(files, classes)
    return FolderParts(files, origins, classes, layout.became)


def _together(files: Files, folder: Path, val: ValSpec, roots: DataRoots) -> Tensor | None:
    """A number for each file, the same for those that must stay in one part: of one group, or copies of one another."""
    same = copies(files, roots)
    if val.group is None:
        return same
    groups = _groups(files, folder, val.group)
    return groups if same is None else joined(groups, same)


def _warn_of_missing(files: Mapping[PartName, Files], classes: tuple[str, ...]) -> None:
    """Log the classes that groups have left without an image in a part. Raises DataError where train lacks one."""
    for name, of_part in files.items():
        there = {label for _, label in of_part}
        missing = [title for label, title in enumerate(classes) if label not in there]
        if missing and name == "train":
            raise DataError(f"no image to train on is left of {some(missing)}: give more images, or smaller groups")
        if missing:
            logger.warning("%s has no images of %d classes: %s", name, len(missing), some(missing))


def copies(files: Files, roots: DataRoots) -> Tensor | None:
    """A number for each file, the same for those of the same bytes; None for more than MOST_SEARCHED files."""
    if len(files) > MOST_SEARCHED:
        logger.info("%d images are not searched for copies of one another: give data.val.group for those", len(files))
        return None
    sizes = [_size(path) for path, _ in files]
    times = Counter(sizes)
    numbers: dict[object, int] = {}
    found = []
    for index, ((path, _), size) in enumerate(zip(files, sizes, strict=True)):
        key = _digest(path, roots) if size and times[size] > 1 else index
        found.append(numbers.setdefault(key, len(numbers)))
    return torch.tensor(found, dtype=torch.int64)


def _size(path: Path) -> int:
    """Bytes; 0 for a file that is not there, which its reader tells of."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _digest(path: Path, roots: DataRoots) -> bytes:
    with roots.open(path) as file:
        return hashlib.file_digest(file, "sha256").digest()


def _labels(files: Files) -> Tensor:
    return torch.tensor([label for _, label in files], dtype=torch.int64)


def _cut_off(name: PartName, mask: Tensor, files: dict[PartName, Files], origins: dict[PartName, Tensor]) -> None:
    """Move those of the training images where `mask` is true into a part of their own."""
    train, taken = files["train"], mask.tolist()
    files[name] = [file for file, cut_off in zip(train, taken, strict=True) if cut_off]
    files["train"] = [file for file, cut_off in zip(train, taken, strict=True) if not cut_off]
    origins[name], origins["train"] = origins["train"][mask], origins["train"][~mask]


def _groups(files: Files, folder: Path, pattern: str) -> Tensor:
    """A number for each file, the same for those of one group. Raises DataError where the pattern finds nothing."""
    expression = re.compile(pattern)
    numbers: dict[str, int] = {}
    found = []
    for path, _ in files:
        key = _group(expression, os.path.relpath(path, folder))
        if key is None:
            raise DataError(f"data.val.group ({pattern}) finds nothing in {os.path.relpath(path, folder)}")
        found.append(numbers.setdefault(key, len(numbers)))
    return torch.tensor(found)


def groups_of(paths: Sequence[str], pattern: str) -> list[str | None]:
    """What the pattern finds in each path below the dataset's root, as in `data.val.group`; None where nothing."""
    expression = re.compile(pattern)
    return [_group(expression, _below_part(path)) for path in paths]


def _group(expression: re.Pattern[str], path: str) -> str | None:
    match = expression.search(path)
    return None if match is None else (match[1] if expression.groups else match[0]) or ""


def _below_part(path: str) -> str:
    """The pattern is of a path as it is below the folder of its part; a root without such folders holds the classes."""
    first, _, rest = path.partition("/")
    return rest if first in ("train", *HELD_OUT) else path
