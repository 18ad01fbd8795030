"""What a preview knows of the data: the facts of the dataset, or what is counted in the folder where it is seen."""

import asyncio
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from cbam_core.data_roots import DataRoots
from cbam_core.datasets import DATASETS, DatasetFacts
from cbam_core.errors import DataError
from cbam_core.image_folders.counts import FolderCounts, count_images
from cbam_core.image_folders.layout import PartName
from cbam_core.image_folders.listing import ListingTooLong, Unlistable
from cbam_core.recipe import DataSpec
from cbam_core.tables.parts import count_rows
from cbam_core.tables.reading import TableTooLarge
from service.preview.recipe_checks import RecipeWarning

COUNTING_SECONDS = 10.0
"""An ImageNet on a local disk takes three."""
_POINTER = "/data/root"


async def look_at(data: DataSpec, data_roots: Iterable[Path]) -> tuple[DatasetFacts, list[RecipeWarning]]:
    """The facts of the dataset, and what is odd about its folder, whose files are listed, in a thread, and not read."""
    facts, root = DATASETS[data.dataset], data.root
    if root is None:
        return facts, []
    seen = os.path.exists if data.dataset == "table" else os.path.isdir
    if not await asyncio.to_thread(seen, root):
        return facts, [_not_seen(root, "is not seen from this server: whether it is there, the workers will find out")]
    look = {"table": _table, "imagefolder": _folder}.get(data.dataset)
    return (facts, []) if look is None else await look(facts, data, Path(root), DataRoots.of(data_roots))


async def _folder(
    facts: DatasetFacts, data: DataSpec, root: Path, roots: DataRoots
) -> tuple[DatasetFacts, list[RecipeWarning]]:
    """Those of a folder of images, which are counted."""
    try:
        counts = await asyncio.to_thread(count_images, root, roots, seconds=COUNTING_SECONDS, val=data.val)
    except (ListingTooLong, Unlistable) as error:
        reason = str(error) or f"was not listed within {COUNTING_SECONDS:.0f} s"
        return facts, [_not_seen(str(root), f"could not be counted: {reason}")]
    except DataError as error:
        return facts, [RecipeWarning(_POINTER, "folder_refused", f"the training will refuse the folder: {error}")]
    return _known(facts, counts), list(_oddities(str(root), counts))


async def _table(
    facts: DatasetFacts, data: DataSpec, root: Path, roots: DataRoots
) -> tuple[DatasetFacts, list[RecipeWarning]]:
    """The same of a table, whose rows are counted."""
    try:
        classes, images, became = await asyncio.to_thread(count_rows, root, data, roots)
    except TableTooLarge:
        return facts, [_not_seen(str(root), "is too large to be counted for a preview")]
    except DataError as error:
        return facts, [RecipeWarning(_POINTER, "folder_refused", f"the training will refuse the table: {error}")]
    return _counted(facts, classes, images, became), []


def _known(facts: DatasetFacts, counts: FolderCounts) -> DatasetFacts:
    return _counted(facts, counts.classes, counts.images or {}, counts.layout.became)


def _counted(
    facts: DatasetFacts, classes: int, images: Mapping[PartName, int], became: Mapping[str, str]
) -> DatasetFacts:
    return replace(
        facts,
        classes=classes,
        train_images=images.get("train"),
        val_images=images.get("val"),
        test_images=images.get("test"),
        became=became,
    )


def _oddities(root: str, counts: FolderCounts) -> Iterator[RecipeWarning]:
    if counts.images is None:
        yield _not_seen(root, f"has more images than were counted within {COUNTING_SECONDS:.0f} s")
    if counts.left_out:
        yield RecipeWarning(
            _POINTER, "files_left_out", f"beside the images to train on are left out: {counts.left_out}"
        )


def _not_seen(root: str, reason: str) -> RecipeWarning:
    return RecipeWarning(_POINTER, "folder_not_counted", f"{root} {reason}; what depends on it is assumed or left open")
