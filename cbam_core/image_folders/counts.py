"""How many classes and images a folder holds, for who must not read them."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from cbam_core.image_folders.listing import ClassFolders, ListingTooLong, shown

TEST_NAMES = ("val", "test")
"""The folder of the images to test on: the first that is there."""


@dataclass(frozen=True)
class FolderCounts:
    """What a folder of images holds; the numbers of images are None where counting them took too long."""

    classes: int
    train_images: int | None
    test_images: int | None
    left_out: str
    """Of the training images, as `12 .gif, 1 .txt`; empty where nothing was."""


def training_folder(root: Path, roots: DataRoots) -> Path:
    """The folder of the classes to train on. Raises DataError, with what is there instead, where there is none."""
    folder = root / "train"
    if not os.path.isdir(folder):  # False, and no error, where the root may not be looked into
        found = ClassFolders(root, roots).contents()
        raise DataError(f"{shown(root)} has no train folder, but {found}; expected train/<class>/<image>")
    return folder


def count_images(root: Path, roots: DataRoots, *, seconds: float) -> FolderCounts:
    """Count what lies below `root`, as the training will find it. Raises DataError for what it would refuse.

    Raises ListingTooLong where not even the classes are known in time.
    """
    deadline = time.monotonic() + seconds
    train = ClassFolders(training_folder(root, roots), roots, deadline=deadline)
    train.check_names()
    try:
        train_images = _count(train)
        tests = [root / name for name in TEST_NAMES if (root / name).is_dir()]
        test_images = _count(ClassFolders(tests[0], roots, deadline=deadline)) if tests else 0
    except ListingTooLong:
        return FolderCounts(len(train.names), None, None, "")
    return FolderCounts(len(train.names), train_images, test_images, train.summary())


def _count(folders: ClassFolders) -> int:
    return sum(len(folders.images(name)) for name in folders.names)
