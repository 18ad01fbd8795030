"""Whether a training goes on with the data it began with: classes, numbers of images, and a digest of their names."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cbam_core.errors import DataError
from cbam_core.image_folders.listing import some

_ADVICE = "put the data back as they were and resume, or start a new experiment"


def names_digest(root: Path, paths: Iterable[Path]) -> str:
    """SHA-256 of the paths below `root`, in order of their names: the same wherever the folder lies."""
    below = len(os.fsencode(root).rstrip(b"/")) + 1
    digest = hashlib.sha256()
    for name in sorted(os.fsencode(path)[below:] for path in paths):
        digest.update(name + b"\0")
    return digest.hexdigest()


def check_same_data(saved: Mapping[str, Any] | None, present: Mapping[str, Any]) -> None:
    """Raise DataError, saying what differs, where a checkpoint's `Dataset.identity` is not the present one.

    A checkpoint from before there was an identity has None, and goes on with what is there.
    """
    if saved is not None and (differences := list(_differences(saved, present))):
        raise DataError(
            f"the data are not those that the checkpoint was trained on: {'; '.join(differences)}; {_ADVICE}"
        )


def _differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> Iterable[str]:
    before, now = saved["classes"], present["classes"]
    if gone := [name for name in before if name not in set(now)]:
        yield f"classes that are gone: {some(gone)}"
    if new := [name for name in now if name not in set(before)]:
        yield f"classes that are new: {some(new)}"
    if before != now and not gone and not new:
        yield "the classes stand in another order"
    for part, count in saved["images"].items():
        if part in present["images"] and present["images"][part] != count:
            yield f"{part} has {present['images'][part]:,} images and had {count:,}"
    if before == now and saved["images"] == present["images"] and saved["names"] != present["names"]:
        yield "there are as many images, but some have other names, or are in another part"
