"""Which rows of a table are train, val and test, those cut off among them: by the rules of a folder of images."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from cbam_core.data_roots import DataRoots
from cbam_core.datasets import TEST_FRACTION
from cbam_core.errors import DataError
from cbam_core.image_folders.layout import PartName
from cbam_core.image_folders.listing import some
from cbam_core.spec import ValSpec
from cbam_core.tables.parts import given_parts
from cbam_core.tables.reading import Rows
from workers.data.datasets.folder_parts import MOST_SEARCHED, copies
from workers.data.splits import cut, joined, val_mask

logger = logging.getLogger(__name__)
Parts = Mapping[PartName, Tensor]
"""The numbers of the rows of each part, in order."""


def divide_rows(
    rows: Rows, val: ValSpec | Literal["folder"], roots: DataRoots, *, with_test: bool = True
) -> tuple[Parts, Mapping[str, str]]:
    """The rows of each part, and where each comes from in words. Raises DataError where nothing can be cut off.

    A part that the table does not name (`given_parts`) is cut from train, first a fifth as test. Rows of one group, and
    copies of an image, stay in one part of what is cut.
    """
    given, became = given_parts(rows, val, with_test=with_test)
    parts: dict[PartName, Tensor] = {name: torch.tensor(numbers) for name, numbers in given.items()}
    if val == "folder" or parts.keys() == {"train", "val", "test"}:
        return parts, became
    train, labels = parts["train"], torch.tensor(rows.labels)
    together = _together(rows, train, roots)
    if "test" not in parts:
        mask = cut(labels[train], TEST_FRACTION, "test", groups=together)
        parts["test"], parts["train"] = train[mask], train[~mask]
        together = None if together is None else together[~mask]
    if "val" not in parts:
        train = parts["train"]
        mask = val_mask(labels[train], val, together)
        parts["val"], parts["train"] = train[mask], train[~mask]
    _warn_of_missing(parts, labels, rows.classes)
    return parts, became


def _together(rows: Rows, train: Tensor, roots: DataRoots) -> Tensor | None:
    """A number for each of the rows, the same for those that must stay in one part; None where none must."""
    same = _copies(rows, train.tolist(), roots)
    if rows.groups is None:
        return same
    groups = _numbered([rows.groups[row] for row in train.tolist()])
    return groups if same is None else joined(groups, same)


def _copies(rows: Rows, train: Sequence[int], roots: DataRoots) -> Tensor | None:
    if rows.paths is not None:
        return copies([(Path(rows.paths[row]), 0) for row in train], roots)
    assert rows.images is not None, "the images of a training are read"
    if len(train) > MOST_SEARCHED:
        logger.info("%d images are not searched for copies of one another: give data.val.group for those", len(train))
        return None
    return _numbered([hashlib.sha256(rows.images[row]).digest() for row in train])


def _numbered(keys: Sequence[object]) -> Tensor:
    numbers: dict[object, int] = {}
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys], dtype=torch.int64)


def _warn_of_missing(parts: Parts, labels: Tensor, classes: Sequence[str]) -> None:
    """Log the classes that groups have left without an image in a part. Raises DataError where train lacks one."""
    for name, rows in parts.items():
        there = set(labels[rows].tolist())
        missing = [title for label, title in enumerate(classes) if label not in there]
        if missing and name == "train":
            raise DataError(f"no image to train on is left of {some(missing)}: give more images, or smaller groups")
        if missing:
            logger.warning("%s has no images of %d classes: %s", name, len(missing), some(missing))
