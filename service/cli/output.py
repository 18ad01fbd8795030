"""What the command prints: answers to stdout, as JSON where asked for; everything else to stderr."""

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


def complain(message: str) -> None:
    """Say what is wrong."""
    typer.secho(f"cbam: {message}", err=True, fg=typer.colors.RED)


def note(message: str) -> None:
    """Say what happens, beside the answer."""
    typer.echo(message, err=True)


def print_json(value: "BaseModel | Sequence[BaseModel] | dict[str, Any]") -> None:
    """Print a view, several of them, or plain values."""
    if isinstance(value, dict):
        plain: Any = value
    elif isinstance(value, Sequence):
        plain = [view.model_dump(mode="json") for view in value]
    else:
        plain = value.model_dump(mode="json")
    typer.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> "Table":
    """A table; columns whose name begins with > are numbers and stand to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        made.add_row(*(Text(str(cell)) for cell in row))
    return made


def print_table(made: "Table") -> None:
    """Print a table; in a pipe as wide as it needs."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else 200).print(made)
