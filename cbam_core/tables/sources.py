"""The files of a table, and the part that each is of: one file, a folder of Parquet files, or what `save_to_disk` left.

A folder of Hugging Face's `datasets` is read as what it is on disk, Parquet or Arrow's stream format, and so without
that library.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError

SUFFIXES = (".csv", ".parquet")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "validation", "valid", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""Names of parts, as they are written; other letters for small ones count too."""
EXPECTED = (
    "expected a .csv or .parquet file, a folder of .parquet files named for their part (train-*.parquet), or a folder "
    "that Hugging Face's save_to_disk has written"
)
MOST_FILES = 100_000
LARGEST_RECORD_BYTES = 16 * 2**20
_NAMED = re.compile(r"([A-Za-z]+)(?:[-_.].*)?\.parquet")


@dataclass(frozen=True)
class TableFile:
    """One file of rows; `split` is the part that it is named for, or None."""

    path: Path
    kind: str  # csv, parquet or arrow
    split: str | None


@dataclass(frozen=True)
class TableSource:
    """All files of a table in their order, the folder that relative paths are below, and what is said beside them."""

    folder: Path
    files: Sequence[TableFile]
    features: Mapping[str, Any] | None = None
    """Hugging Face's description of the columns, where it stands in a file of its own."""


def source_at(root: Path, roots: DataRoots) -> TableSource:
    """The files of the table at `root`. Raises DataError where there is none of the expected kinds."""
    if root.is_file():
        if root.suffix.lower() not in SUFFIXES:
            raise DataError(f"{root} is no table; {EXPECTED}")
        return TableSource(root.parent, [TableFile(root, root.suffix.lower()[1:], None)])
    if not root.is_dir():
        raise DataError(f"{root} is not there on this machine; is the table there, and mounted on every node?")
    splits = _record(root / "dataset_dict.json", roots)
    if splits is not None:
        named = splits.get("splits")
        names = [str(name) for name in named] if isinstance(named, list) else []
        inner = [_saved(root / name, roots, split=part_named(name, root)) for name in names if "/" not in name]
        if not inner:
            raise DataError(f"{root / 'dataset_dict.json'} names no split; {EXPECTED}")
        return TableSource(root, [file for one in inner for file in one.files], inner[0].features)
    if (root / "state.json").is_file():
        return _saved(root, roots, split=None)
    return TableSource(root, _parquet_files(root))


def part_named(name: str, where: object) -> str:
    """The part of this name. Raises DataError for none."""
    part = SPLITS.get(name.strip().lower())
    if part is None:
        raise DataError(f"{where}: {name!r} is no part; known are {', '.join(SPLITS)}")
    return part


def _saved(folder: Path, roots: DataRoots, *, split: str | None) -> TableSource:
    """What `Dataset.save_to_disk` wrote."""
    state = _record(folder / "state.json", roots)
    files = state.get("_data_files") if state is not None else None
    names = [one.get("filename") for one in files if isinstance(one, dict)] if isinstance(files, list) else []
    if not names or not all(isinstance(name, str) and "/" not in name for name in names):
        raise DataError(f"{folder / 'state.json'} names no files of rows: save the dataset again")
    if state is not None and state.get("_indices_data_files"):
        raise DataError(f"{folder} is a selection of rows beside the rows: save it again after flatten_indices()")
    info = _record(folder / "dataset_info.json", roots) or {}
    features = info.get("features")
    return TableSource(
        folder,
        [TableFile(folder / str(name), "arrow", split) for name in names],
        features if isinstance(features, dict) else None,
    )


def _parquet_files(root: Path) -> list[TableFile]:
    found = []
    for folder in (root, root / "data"):
        if folder.is_dir():
            found += sorted(path for path in folder.glob("*.parquet") if not path.name.startswith("."))
    if not found:
        raise DataError(f"{root} holds no table; {EXPECTED}")
    if len(found) > MOST_FILES:
        raise DataError(f"{root} holds more than {MOST_FILES:,} files")
    parts = [_part_of_file(path) for path in found]
    if any(parts) and not all(parts):
        unnamed = found[parts.index(None)]
        raise DataError(f"{unnamed} is not named for a part, as others are: name it train-…, val-… or test-….parquet")
    return [TableFile(path, "parquet", part) for path, part in zip(found, parts, strict=True)]


def _part_of_file(path: Path) -> str | None:
    named = _NAMED.fullmatch(path.name)
    return None if named is None else SPLITS.get(named[1].lower())


def _record(path: Path, roots: DataRoots) -> dict[str, Any] | None:
    """A small JSON file; None where there is none. Raises DataError for what is none of JSON."""
    if not path.is_file():
        return None
    try:
        with roots.open(path) as file:
            content = json.loads(file.read(LARGEST_RECORD_BYTES))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds no JSON object")
    return content
