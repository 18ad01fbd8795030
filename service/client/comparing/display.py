"""A comparison for the person who watches: a live table whose intervals narrow on a terminal, plain lines in a pipe."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, TextIO

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cbam_core.printable import escaped_line
from service.client.comparing.table import fitting_table
from service.comparisons.table import difference
from service.schemas.experiments import ExperimentView
from service.schemas.studies import ComparisonView

if TYPE_CHECKING:
    from service.schemas.comparison_results import ResultView
    from service.schemas.sweep_views import SweepView

RESULT_SECONDS = 2.0
STYLES = {"SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow"}


class Watched(Protocol):
    """What is needed of a comparison to show it: its handle has all of it."""

    view: ComparisonView

    @property
    def result(self) -> "ResultView": ...  # noqa: D102

    def running(self) -> Sequence[ExperimentView]:
        """Those of its experiments that train now."""


@contextmanager
def watching_comparison(
    handle: Watched, stream: TextIO, *, as_json: bool = False, transient: bool = False
) -> Iterator[Callable[[], None]]:
    """A function that shows where the comparison is; as JSON it is a line for each change.

    A `transient` table goes at the end: whoever prints the result then does not want it twice.
    """
    if as_json:
        yield Changes(stream, lambda: (handle.view, handle.view.model_dump_json())).show
        return
    console = Console(file=stream)
    if not console.is_terminal:
        yield Changes(stream, Picture(handle).line).show
        return
    with Live(console=console, refresh_per_second=8, transient=transient) as live:
        picture = Picture(handle)
        yield lambda: live.update(picture.table(console.width))


class Picture:
    """What is shown of a comparison.

    Its result is asked for again where the comparison has changed, and now and then: what a run has reached is read a
    moment after its end.
    """

    def __init__(self, handle: Watched) -> None:
        self._handle = handle
        self._of: ComparisonView | None = None
        self._result: ResultView | None = None
        self._next = 0.0

    def table(self, width: int) -> Group:
        """The table as far as it fits, and the counts with the time to the end below it."""
        view, result = self._handle.view, self._current()
        columns, rows, _ = fitting_table(result, width)
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            is_number = column.startswith(">")
            name = column.removeprefix(">")
            made.add_column(name, justify="right" if is_number else "left", no_wrap=is_number)
        for row in rows:
            made.add_row(*(Text(escaped_line(cell)) for cell in row))
        state = Text(f"{view.state} {view.reason or ''}".rstrip(), style=STYLES.get(view.state, "cyan"))
        facts = f"  {escaped_line(view.name)}  {counts(view)}  {seeds_of(result)}{self._eta()}"
        return Group(made, Text.assemble(state, facts))

    def line(self) -> tuple[str, str]:
        """One line: state, counts, seeds, the differences so far, time to the end; first without that time."""
        view, result = self._handle.view, self._current()
        known = [pair for pair in result.pairs if pair.difference is not None]
        said = [f"{pair.first} − {pair.second} {difference(pair, result)}" for pair in known]
        line = "  ".join([f"{view.name:<24} {view.state:<9} {counts(view)}", seeds_of(result), *said])
        return line, line + self._eta()

    def _current(self) -> "ResultView":
        now = time.monotonic()
        if self._result is None or self._of != self._handle.view or now >= self._next:
            self._of, self._result, self._next = self._handle.view, self._handle.result, now + RESULT_SECONDS
        return self._result

    def _eta(self) -> str:
        view = self._handle.view
        if not view.trials.running:
            return ""
        seconds = eta_seconds(view, self._handle.running())
        return "" if seconds is None else f"  ETA {timedelta(seconds=round(seconds))}"


class Changes:
    """A line for each change of a study."""

    def __init__(self, stream: TextIO, line: Callable[[], tuple[object, str]]) -> None:
        """`line` gives what may change, and the line that says it."""
        self._stream, self._line = stream, line
        self._shown: object = None

    def show(self) -> None:
        """Print the line, where something has changed since the last one."""
        now, line = self._line()
        if self._shown != now:
            self._shown = now
            print(escaped_line(line), file=self._stream, flush=True)


def counts(view: "ComparisonView | SweepView") -> str:
    """How far the runs are: `7/24 runs, 2 running, 1 failed`."""
    trials = view.trials
    ended = trials.succeeded + trials.failed + trials.cancelled + trials.deleted
    others = {name: getattr(trials, name) for name in ("running", "failed", "cancelled", "deleted")}
    said = [f"{ended}/{trials.planned} runs", *(f"{count} {name}" for name, count in others.items() if count)]
    return ", ".join(said)


def eta_seconds(view: "ComparisonView | SweepView", running: Sequence[ExperimentView]) -> float | None:
    """Estimated time to the end, as if so many trained at a time as do now; None where that cannot be told.

    The runs that are left take as long as those that train now will have taken.
    """
    left, whole = [], []
    for one in running:
        progress = one.progress
        done = progress.step / progress.total_steps if progress.total_steps else 0.0
        if progress.eta_seconds is not None and done < 1:
            left.append(progress.eta_seconds)
            whole.append(progress.eta_seconds / (1 - done))
    if not left:
        return None
    trials = view.trials
    ended = trials.succeeded + trials.failed + trials.cancelled + trials.deleted
    to_begin = max(0, trials.planned - ended - trials.running)
    return (sum(left) + to_begin * sum(whole) / len(whole)) / len(left)


def seeds_of(result: "ResultView") -> str:
    """How many seeds are finished, of how many."""
    seeds = result.seeds
    until = f" (at most {seeds.most})" if seeds.rule == "precision" and seeds.planned != seeds.most else ""
    return f"{seeds.finished}/{seeds.planned} seeds{until}"
