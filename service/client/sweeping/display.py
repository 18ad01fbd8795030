"""A sweep for the person who watches: the best trials so far on a terminal, plain lines in a pipe."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cbam_core.printable import escaped_line
from service.client.comparing.display import STYLES, Changes, counts, eta_seconds
from service.schemas.experiments import ExperimentView
from service.schemas.sweep_views import RankedTrialView, SweepResult, SweepView

BEST_SHOWN = 10


class Watched(Protocol):
    """What is needed of a sweep to show it: its handle has all of it."""

    view: SweepView

    @property
    def result(self) -> SweepResult: ...  # noqa: D102

    def running(self) -> Sequence[ExperimentView]:
        """Those of its experiments that train now."""


@contextmanager
def watching_sweep(handle: Watched, stream: TextIO, *, as_json: bool = False) -> Iterator[Callable[[], None]]:
    """A function that shows where the sweep is; as JSON it is a line for each change."""
    if as_json:
        yield Changes(stream, lambda: (handle.view, handle.view.model_dump_json())).show
        return
    console = Console(file=stream)
    if not console.is_terminal:
        yield Changes(stream, lambda: _line(handle)).show
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield lambda: live.update(_picture(handle))


def columns_and_rows(result: SweepResult, most: int) -> tuple[list[str], list[tuple[str, ...]]]:
    """The best trials as a table; the names of columns that stand to the right begin with >."""
    columns = [">trial", f">{result.metric}", *result.fields, "experiment", ""]
    return columns, [
        (
            str(one.number),
            "" if one.value is None else f"{one.value:.4f}",
            *(shown(one.params[name]) if name in one.params else "" for name in result.fields),
            one.experiment_id or "",
            "" if one.value is not None else one.outcome or one.state or "",
        )
        for one in result.trials[:most]
    ]


def shown(value: object) -> str:
    """A searched value, short."""
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def best_of(result: SweepResult) -> str:
    """The best so far in a line."""
    best: RankedTrialView | None = result.best
    if best is None:
        return "nothing has ended with a value yet"
    values = "  ".join(f"{name} {shown(value)}" for name, value in best.params.items())
    return f"best {best.value:.4f} (trial {best.number}): {values}"


def _line(handle: Watched) -> tuple[str, str]:
    """One line, first without the time to the end."""
    view: SweepView = handle.view
    line = f"{view.name:<24} {view.state:<9} {counts(view)}  {best_of(handle.result)}"
    return line, line + _eta(handle)


def _eta(handle: Watched) -> str:
    if not handle.view.trials.running:
        return ""
    seconds = eta_seconds(handle.view, handle.running())
    return "" if seconds is None else f"  ETA {timedelta(seconds=round(seconds))}"


def _picture(handle: Watched) -> Group:
    view = handle.view
    columns, rows = columns_and_rows(handle.result, BEST_SHOWN)
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        made.add_row(*(Text(escaped_line(cell)) for cell in row))
    state = Text(f"{view.state} {view.reason or ''}".rstrip(), style=STYLES.get(view.state, "cyan"))
    return Group(made, Text.assemble(state, f"  {escaped_line(view.name)}  {counts(view)}{_eta(handle)}"))
