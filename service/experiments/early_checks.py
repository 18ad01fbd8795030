"""What the training would find out minutes later, and the server can see at the submission without reading images."""

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from cbam_core.backbones import TIMM_PREFIX, is_timm
from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from cbam_core.image_folders.layout import layout_of
from cbam_core.image_folders.listing import ClassFolders, ListingTooLong, Unlistable, shown
from cbam_core.recipe import DataSpec
from cbam_core.spec import ExperimentSpec
from cbam_core.suggestions import did_you_mean
from cbam_core.tables.parts import listed_rows
from cbam_core.tables.reading import TableTooLarge
from service.errors import InvalidField
from service.experiments.timm_names import timm_names

LISTING_SECONDS = 5.0
FIRST_IMAGES = 100
"""So many images of a table are looked for at the submission."""


def check_backbone(spec: ExperimentSpec) -> None:
    """Raise InvalidField for a network of timm's that the timm installed here, if there is one, does not have."""
    backbone = spec.model.backbone
    if not is_timm(backbone) or not (names := timm_names()):
        return
    name = backbone.removeprefix(TIMM_PREFIX).partition(".")[0]
    if name not in names:
        meant = did_you_mean(name, sorted(names), most=1, prefix=TIMM_PREFIX)
        raise InvalidField("/model/backbone", f"timm has no network {name}{meant}")


def check_folder(data_roots: Iterable[Path], data: DataSpec) -> None:
    """Raise InvalidField for a root that is no folder, or of an imagefolder, one without two classes or any image.

    The classes are listed, and their images up to the first. What this machine does not show, the workers may have: it
    is not refused, and a preview warns of it.
    """
    if data.root is None:
        return
    roots, root = DataRoots.of(data_roots), Path(data.root)
    if not (os.path.isdir(root) or (data.dataset == "table" and os.path.isfile(root))):
        if roots.shows(root):
            kind = "neither a table nor a folder" if data.dataset == "table" else "not a folder"
            raise InvalidField("/data/root", f"{data.root} is {kind}; put the data there, or mend the path")
        return
    if data.dataset == "table":
        check_table(root, data, roots)
        return
    if data.dataset != "imagefolder":
        return
    deadline = time.monotonic() + LISTING_SECONDS
    try:
        folders = ClassFolders(
            layout_of(root, data.val, roots, deadline=deadline).folders["train"], roots, deadline=deadline
        )
        folders.check_names()
        if not any(folders.images(name) for name in folders.names):
            left_out = f"; left out: {folders.summary()}" if folders.left_out else ""
            raise DataError(f"{shown(folders.folder)} has no images in its class folders{left_out}")
    except (ListingTooLong, Unlistable):
        return
    except DataError as error:
        raise InvalidField("/data/root", str(error)) from error


def check_table(root: Path, data: DataSpec, roots: DataRoots) -> None:
    """Raise InvalidField for a table without the columns, labels or classes, or whose first images are not there.

    One that is too large to be read for an answer is left to the workers.
    """
    try:
        rows = listed_rows(root, data, roots)
        if rows.paths is not None:
            _check_first_images(rows.paths, roots)
    except TableTooLarge:
        return
    except DataError as error:
        raise InvalidField("/data/root", str(error)) from error


def _check_first_images(paths: Sequence[Path], roots: DataRoots) -> None:
    """Raise DataError for one that lies out of the data roots, or is not there."""
    for row, path in enumerate(paths[:FIRST_IMAGES], start=1):
        roots.check(path)
        if not path.is_file():
            raise DataError(f"{path}, which row {row} names, is not there: paths are below the table's folder")
