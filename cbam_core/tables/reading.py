"""The rows of a table: an image, a class, and perhaps a part and a group each."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from cbam_core.tables.options import ColumnsSpec
from cbam_core.tables.sources import TableFile, TableSource, part_named, source_at

if TYPE_CHECKING:
    import pyarrow as pa

FEWEST_CLASSES = 2
MOST_LISTED_ROWS = 5_000_000
"""Of one Parquet file, where the images are left out: a small one may unpack to many."""
_NAMED = 5


class TableTooLarge(DataError):
    """The table is too large to be read for an answer."""


@dataclass(frozen=True)
class Rows:
    """The rows, in order. `labels` are places in `classes`.

    paths   of images that are files; None where the images are in the table
    images  encoded, where they are in the table and were asked for
    names   of images in the table, where it names them
    splits  train, val or test; None where the table does not say
    groups  the values of the column of groups, as text; None where none was asked for
    """

    folder: Path
    classes: tuple[str, ...]
    labels: Sequence[int]
    paths: Sequence[Path] | None
    images: Sequence[bytes] | None
    names: Sequence[str] | None
    splits: Sequence[str] | None
    groups: Sequence[str] | None

    def parts(self) -> dict[str, list[int]]:
        """The numbers of the rows of each part that the table names; all are to train on where it names none."""
        if self.splits is None:
            return {"train": list(range(len(self.labels)))}
        found: dict[str, list[int]] = {}
        for row, split in enumerate(self.splits):
            found.setdefault(split, []).append(row)
        if "train" not in found:
            raise DataError(f"no row of the table is to train on: its parts are {', '.join(found)}")
        return {name: found[name] for name in ("train", "val", "test") if name in found}


def read_rows(
    root: Path, columns: ColumnsSpec, roots: DataRoots, *, group: str | None = None, most_bytes: int | None = None
) -> Rows:
    """The rows of the table at `root`.

    With `most_bytes` images in the table are left out, and it raises TableTooLarge where more than so many bytes would
    be read for the rest: for who must answer soon.

    Raises DataError, with names, for what is no table, a column that is not there or of another kind, a row without a
    label or an image, a part of no known name, and fewer than two classes.
    """
    source = source_at(root, roots)
    wanted = dict.fromkeys(name for name in (columns.image, columns.label, columns.split, group) if name is not None)
    if most_bytes is not None:
        _check_size(source, most_bytes)
    image = None if most_bytes is None else columns.image
    tables = [(file, _table(file, list(wanted), roots, unread=image)) for file in source.files]
    rows = sum(table.num_rows for _, table in tables)
    if rows == 0:
        raise DataError(f"{root} has no rows")
    features = source.features or _features_in(tables[0][1])
    values = _joined([table.column(columns.label) for _, table in tables])
    labels, classes = _classes(values, columns.label, root, _class_names(features, columns.label))
    splits = _splits(tables, columns.split, root)
    images = _Images(source, columns.image, with_images=most_bytes is None)
    for file, table in tables:
        images.add(file, table)
    groups = None if group is None else _texts(_joined([table.column(group) for _, table in tables]), group, root)
    found = Rows(source.folder, classes, labels, *images.found(), splits, groups)
    _check_classes(found, root)
    return found


def _check_size(source: TableSource, most_bytes: int) -> None:
    """Of Parquet the wanted columns are read alone; other files as a whole."""
    with suppress(OSError):
        if sum(file.path.stat().st_size for file in source.files if file.kind != "parquet") > most_bytes:
            raise TableTooLarge


def _table(file: TableFile, columns: list[str], roots: DataRoots, *, unread: str | None) -> "pa.Table":
    """The named columns of a file; without `unread` where that is of images in a Parquet file.

    Raises DataError where one is not there, with those that are.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
        from pyarrow import csv
    except ImportError as error:
        raise DataError("tables are read with pyarrow, which is not installed: pip install pyarrow") from error
    try:
        with roots.open(file.path) as opened:
            if file.kind == "parquet":
                parquet = pq.ParquetFile(opened)
                _check_columns(file.path, columns, parquet.schema_arrow.names)
                if unread is not None and parquet.metadata.num_rows > MOST_LISTED_ROWS:
                    raise TableTooLarge
                in_table = unread is not None and not _holds_text(parquet.schema_arrow.field(unread).type)
                return parquet.read(columns=[name for name in columns if not (in_table and name == unread)])
            if file.kind == "arrow":
                table = pa.ipc.open_stream(opened).read_all()
            else:
                table = csv.read_csv(opened, convert_options=_as_text(opened, csv, columns, file.path))
    except FileNotFoundError as error:
        raise DataError(f"{file.path} is not there: is all of the table copied?") from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"cannot read {file.path}: {error}") from error
    _check_columns(file.path, columns, table.column_names)
    return table.select(columns)


def _as_text(opened: Any, csv: Any, columns: list[str], path: Path) -> Any:
    """All wanted columns of a CSV as text: `007` is no number. An empty cell is none."""
    import pyarrow as pa

    with csv.open_csv(opened, read_options=csv.ReadOptions(block_size=2**20)) as start:
        names = start.schema.names
    _check_columns(path, columns, names)
    opened.seek(0)
    return csv.ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()),
        include_columns=columns,
        strings_can_be_null=True,
        null_values=[""],
    )


def _check_columns(path: Path, wanted: Sequence[str], there: Sequence[str]) -> None:
    missing = [name for name in wanted if name not in there]
    if missing:
        raise DataError(f"{path} has no column {_some(missing)}, but {_some(there)}; name them in data.columns")


def _joined(columns: Sequence[Any]) -> list[Any]:
    return [value for column in columns for value in column.to_pylist()]


def _features_in(table: "pa.Table") -> Mapping[str, Any] | None:
    """Hugging Face's description of the columns, in a file's schema."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return None
    return features if isinstance(features, dict) else None


def _class_names(features: Mapping[str, Any] | None, column: str) -> list[str] | None:
    described = (features or {}).get(column)
    names = described.get("names") if isinstance(described, dict) else None
    return [str(name) for name in names] if isinstance(names, list) and names else None


def _classes(
    values: Sequence[Any], column: str, root: Path, names: list[str] | None
) -> tuple[list[int], tuple[str, ...]]:
    """The place of each label among the classes, and their names: Hugging Face's, or the labels themselves in order."""
    empty = [row for row, value in enumerate(values) if value is None or value == ""]
    if empty:
        raise DataError(f"{root}: {len(empty)} rows have no {column}, the first is row {empty[0] + 1}")
    odd = next((value for value in values if isinstance(value, bool) or not isinstance(value, str | int)), None)
    if odd is not None:
        raise DataError(f"{root}: {column} holds {type(odd).__name__}s, and neither text nor whole numbers")
    if names is not None and all(isinstance(value, int) for value in values):
        wrong = [row for row, value in enumerate(values) if not 0 <= value < len(names)]
        if wrong:
            raise DataError(
                f"{root}: {len(wrong)} rows have a {column} that is none of its {len(names)} classes, as "
                f"{values[wrong[0]]} in row {wrong[0] + 1}: leave out rows without a label"
            )
        return list(values), tuple(names)
    known = sorted(set(values), key=lambda value: (isinstance(value, str), value))
    places = {value: place for place, value in enumerate(known)}
    return [places[value] for value in values], tuple(map(str, known))


def _splits(tables: Sequence[tuple[TableFile, "pa.Table"]], column: str | None, root: Path) -> list[str] | None:
    if column is not None:
        values = _joined([table.column(column) for _, table in tables])
        known = {value: part_named(value, f"{root}, column {column}") for value in set(_texts(values, column, root))}
        return [known[str(value)] for value in values]
    if tables[0][0].split is None:
        return None
    return [str(file.split) for file, table in tables for _ in range(table.num_rows)]


def _texts(values: Sequence[Any], column: str, root: Path) -> list[str]:
    empty = [row for row, value in enumerate(values) if value is None]
    if empty:
        raise DataError(f"{root}: {len(empty)} rows have no {column}, the first is row {empty[0] + 1}")
    return [str(value) for value in values]


def _holds_text(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or (pa.types.is_dictionary(kind) and _holds_text(kind.value_type))
    )


class _Images:
    """The column of images, as far as it is read."""

    def __init__(self, source: TableSource, column: str, *, with_images: bool) -> None:
        self._source, self._column, self._with_images = source, column, with_images
        self._paths: list[Path] = []
        self._images: list[bytes] = []
        self._names: list[str | None] = []
        self._in_table = False

    def add(self, file: TableFile, table: "pa.Table") -> None:
        """Those of one file. Raises DataError for a row without an image, and for a column of another kind."""
        import pyarrow as pa

        if self._column not in table.column_names:  # it was left unread
            self._in_table = True
            return
        column = table.column(self._column)
        kind = column.type
        in_struct = pa.types.is_struct(kind) and {field.name for field in kind} >= {"bytes", "path"}
        if _holds_text(kind):
            self._add_paths(file, column.to_pylist())
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            self._add_bytes(file, column, [None] * len(column))
        elif in_struct:
            inner = column.combine_chunks()
            inner = inner.chunk(0) if isinstance(inner, pa.ChunkedArray) else inner
            names = inner.field("path").to_pylist()
            if inner.field("bytes").null_count == len(inner):
                self._add_paths(file, names)
            else:
                self._add_bytes(file, inner.field("bytes"), names)
        else:
            raise DataError(f"{file.path}: {self._column} holds {column.type}, and neither paths nor bytes of images")

    def found(self) -> tuple[list[Path] | None, list[bytes] | None, list[str] | None]:
        """Paths, bytes and names, as `Rows` has them. Raises DataError where some are files and some are not."""
        if not self._in_table:
            return self._paths, None, None
        if self._paths:
            raise DataError(f"{self._source.folder}: {self._column} holds paths in one file and bytes in another")
        names = [str(name) for name in self._names] if self._names and all(self._names) else None
        return None, self._images if self._with_images else None, names

    def _add_paths(self, file: TableFile, values: Sequence[str | None]) -> None:
        self._check(file, [row for row, value in enumerate(values) if not value])
        self._paths += [self._source.folder / str(value) for value in values]

    def _add_bytes(self, file: TableFile, values: Any, names: Sequence[str | None]) -> None:
        import pyarrow.compute as pc

        self._in_table = True
        self._names += names
        nulls = pc.indices_nonzero(pc.is_null(values)).to_pylist() if values.null_count else []
        self._check(file, nulls)
        if self._with_images:
            self._images += values.to_pylist()

    def _check(self, file: TableFile, empty: Sequence[int]) -> None:
        if empty:
            raise DataError(f"{file.path}: {len(empty)} rows have no {self._column}, the first is row {empty[0] + 1}")


def _check_classes(rows: Rows, root: Path) -> None:
    """Raise DataError for fewer than two classes, or one without an image to train on."""
    if len(rows.classes) < FEWEST_CLASSES:
        raise DataError(f"{root} has {len(rows.classes)} class ({_some(rows.classes)}); two are needed at least")
    trained = {rows.labels[row] for row in rows.parts()["train"]}
    untrained = [name for place, name in enumerate(rows.classes) if place not in trained]
    if untrained:
        raise DataError(f"{root} has no rows to train on of {len(untrained)} classes: {_some(untrained)}")


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
