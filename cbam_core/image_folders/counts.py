"""How many classes and images a folder holds, for who must not read them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cbam_core.data_roots import DataRoots
from cbam_core.image_folders.layout import FolderLayout, PartName, layout_of
from cbam_core.image_folders.listing import ClassFolders, ListingTooLong
from cbam_core.recipe import ValSpec

CUT = ValSpec()


@dataclass(frozen=True)
class FolderCounts:
    """What a folder of images holds.

    `images` are those below the folder of each part that has one; None where counting them took too long. `left_out`
    is of the training folder, as `12 .gif, 1 .txt`; empty where nothing was.
    """

    classes: int
    images: Mapping[PartName, int] | None
    left_out: str
    layout: FolderLayout


def count_images(
    root: Path, roots: DataRoots, *, seconds: float, val: ValSpec | Literal["folder"] = CUT
) -> FolderCounts:
    """Count what lies below `root`, as the training will find it. Raises DataError for what it would refuse.

    Raises ListingTooLong where not even the classes are known in time.
    """
    deadline = time.monotonic() + seconds
    layout = layout_of(root, val, roots, deadline=deadline)
    train = ClassFolders(layout.folders["train"], roots, deadline=deadline)
    train.check_names()
    try:
        images: dict[PartName, int] = {"train": _count(train)}
        for name, folder in layout.folders.items():
            if name != "train":
                images[name] = _count(ClassFolders(folder, roots, deadline=deadline))
    except ListingTooLong:
        return FolderCounts(len(train.names), None, "", layout)
    return FolderCounts(len(train.names), images, train.summary(), layout)


def _count(folders: ClassFolders) -> int:
    return sum(len(folders.images(name)) for name in folders.names)
