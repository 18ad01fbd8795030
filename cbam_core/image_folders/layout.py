"""Which folders below a root become train, val and test, and what is cut from train for the others."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cbam_core.data_roots import DataRoots
from cbam_core.datasets import TEST_FRACTION
from cbam_core.errors import DataError
from cbam_core.image_folders.listing import ClassFolders, shown, some
from cbam_core.image_folders.names import is_ignored
from cbam_core.recipe import ValSpec

logger = logging.getLogger(__name__)
EXPECTED = "expected train/<class>/<image>, with val/ and test/ beside train/ or without, or <class>/<image> alone"
HELD_OUT = ("val", "test")
PartName = Literal["train", "val", "test"]
CUT_FROM_ALL = f"{TEST_FRACTION:.0%} cut from train, of every class, the same in every experiment"


@dataclass(frozen=True)
class FolderLayout:
    """The folder of each part that has one, and of each part where its images come from, in words."""

    folders: Mapping[PartName, Path]
    became: Mapping[str, str]
    unread: tuple[str, ...] = ()
    """Folders beside train that are no part."""


def layout_of(
    root: Path,
    val: ValSpec | Literal["folder"],
    roots: DataRoots,
    *,
    with_test: bool = True,
    deadline: float | None = None,
) -> FolderLayout:
    """What becomes of the folders below `root`. Raises DataError, with what is there instead, for no layout.

    Without `with_test` nothing is test, and its folder is not looked at. With a `deadline` (of time.monotonic) it
    raises ListingTooLong.

    Three folders are taken as they are. Of two, the one beside train is test, or where `val` is `folder`, val. Without
    any, a fifth of train is cut off as test. Val is cut from what is left of train, where it has no folder.
    """
    there: dict[str, Path] = {name: root / name for name in ("train", *HELD_OUT) if os.path.isdir(root / name)}
    unread: tuple[str, ...] = ()
    if "train" not in there:
        beside = ClassFolders(root, roots, deadline=deadline)
        if there or not beside.names:
            raise DataError(f"{shown(root)} has no train folder, but {beside.contents()}; {EXPECTED}")
        there["train"] = root
    else:
        unread = _others(root, there)
    held_out = [there[name] for name in HELD_OUT if name in there]
    if val == "folder" and not held_out:
        found = ClassFolders(root, roots, deadline=deadline).contents()
        raise DataError(
            f"data.val is folder, and {shown(root)} has no val folder, but {found}; leave it out: val is cut from train"
        )
    folders: dict[PartName, Path] = {"train": there["train"]}
    if len(held_out) == len(HELD_OUT) or val == "folder":
        folders["val"] = held_out.pop(0)
    if held_out and with_test:
        folders["test"] = held_out[0]
    became: dict[str, str] = {name: _words(root, folder) for name, folder in folders.items()}
    if val != "folder":
        became = {"val": val.words, "test": CUT_FROM_ALL} | became
    return FolderLayout(folders, became, unread)


def warn_of_unread(root: Path, layout: FolderLayout) -> None:
    """Log the folders that are no part."""
    if layout.unread:
        logger.warning("%s: not read, as neither train, val nor test: %s", shown(root), some(layout.unread))


def _others(root: Path, there: Mapping[str, Path]) -> tuple[str, ...]:
    """The folders in `root` that are not `there`; links are not looked at."""
    with suppress(OSError), os.scandir(root) as entries:
        found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return tuple(sorted(name for name in found if name not in there and not is_ignored(name)))
    return ()


def _words(root: Path, folder: Path) -> str:
    return "the whole folder" if folder == root else f"the folder {folder.name}"
