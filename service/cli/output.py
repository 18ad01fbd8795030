"""What the command prints: answers to stdout, as JSON where asked for; everything else to stderr."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cbam_core.printable import escaped

if TYPE_CHECKING:
    from pydantic import BaseModel

AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
AsJsonLines = Annotated[bool, typer.Option("--json", help="Print JSON, one value on each line.")]


def complain(message: str) -> None:
    """Say what is wrong."""
    typer.secho(escaped(f"cbam: {message}"), err=True, fg=typer.colors.RED)


def note(message: str) -> None:
    """Say what happens, beside the answer."""
    typer.echo(escaped(message), err=True)


def say(message: str, *, nl: bool = True) -> None:
    """Print an answer, or a line of it: what came from elsewhere is escaped where a terminal would take it for more."""
    typer.echo(escaped(message), nl=nl)


def print_json(value: "BaseModel | Sequence[BaseModel] | dict[str, Any]") -> None:
    """Print a view, several of them, or plain values."""
    if isinstance(value, dict):
        plain: Any = value
    elif isinstance(value, Sequence):
        plain = [view.model_dump(mode="json") for view in value]
    else:
        plain = value.model_dump(mode="json")
    say(json.dumps(plain, indent=2, ensure_ascii=False))


@dataclass(frozen=True)
class Grid:
    """Rows under columns; columns whose name begins with > are numbers and stand to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Grid:
    """A table to print."""
    return Grid(columns, rows)


def print_table(grid: Grid) -> None:
    """Print a table; in a pipe as plain lines, one for each row, as wide as they need."""
    if not sys.stdout.isatty():
        for line in _lines(grid):
            say(line)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(grid.columns))
    for column in grid.columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in grid.rows:
        made.add_row(*(Text(escaped(str(cell))) for cell in row))
    Console().print(made)


def _lines(grid: Grid) -> Iterator[str]:
    heads = [column.removeprefix(">") for column in grid.columns]
    cells = [[" ".join(escaped(str(cell)).splitlines()) for cell in row] for row in grid.rows]
    shown = [heads, *cells] if any(heads) else cells
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        places = zip(row, widths, grid.columns, strict=True)
        yield "  ".join(f"{cell:>{w}}" if c.startswith(">") else f"{cell:<{w}}" for cell, w, c in places).rstrip()
