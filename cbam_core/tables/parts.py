"""Which rows of a table are given as train, val and test, and what is cut for the others; and a count for a preview."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from cbam_core.image_folders.layout import CUT_FROM_ALL, HELD_OUT, PartName
from cbam_core.recipe import DataSpec, ValSpec
from cbam_core.tables.options import ColumnsSpec
from cbam_core.tables.reading import Rows, read_rows

MOST_LISTED_BYTES = 128 * 2**20
"""A server reads no more of a table for an answer."""


def given_parts(
    rows: Rows, val: ValSpec | Literal["folder"], *, with_test: bool = True
) -> tuple[dict[PartName, Sequence[int]], dict[str, str]]:
    """The numbers of the rows of the parts that the table names, and where each part comes from, in words.

    By the rules of a folder of images: three parts are taken as they are. Of two, the one beside train is test, or
    where `val` is `folder`, val. All is train where none is named. Raises DataError where there must be one.
    """
    there = rows.parts()
    held_out = [name for name in HELD_OUT if name in there]
    if val == "folder" and not held_out:
        raise DataError("data.val is folder, and the table names no val: leave it out, and val is cut from train")
    named: dict[PartName, str] = {"train": "train"}
    if len(held_out) == len(HELD_OUT) or val == "folder":
        named["val"] = held_out.pop(0)
    if held_out and with_test:
        named["test"] = held_out[0]
    whole = rows.splits is None
    became: dict[str, str] = {
        part: "the whole table" if whole else f"the rows of {name}" for part, name in named.items()
    }
    if val != "folder":
        became = {"val": val.words, "test": CUT_FROM_ALL} | became
    return {part: there[name] for part, name in named.items()}, became


def listed_rows(root: Path, data: DataSpec, roots: DataRoots) -> Rows:
    """The rows without the images in them, for a server. Raises DataError; TableTooLarge where it takes too long."""
    return read_rows(root, columns_of(data), roots, group=group_of(data), most_bytes=MOST_LISTED_BYTES)


def count_rows(root: Path, data: DataSpec, roots: DataRoots) -> tuple[int, Mapping[PartName, int], Mapping[str, str]]:
    """Classes, rows of each part that is given, and where each part comes from. Raises what `listed_rows` does."""
    rows = listed_rows(root, data, roots)
    parts, became = given_parts(rows, data.val)
    return len(rows.classes), {name: len(part) for name, part in parts.items()}, became


def columns_of(data: DataSpec) -> ColumnsSpec:
    """Those of the spec, or the usual ones."""
    return data.columns or ColumnsSpec()


def group_of(data: DataSpec) -> str | None:
    """The column of groups."""
    return data.val.group if isinstance(data.val, ValSpec) else None
