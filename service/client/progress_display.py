"""Experiments for the person who watches: a live table with bars and ETA on a terminal, plain lines in a pipe."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TextIO

from rich import box
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cbam_core.printable import escaped, escaped_line
from service.domain.states import TERMINAL
from service.schemas.experiments import ExperimentView

LINE_SECONDS = 5.0
BAR_WIDTH = 24
STYLES = {"SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow"}
Show = Callable[[Sequence[ExperimentView]], None]


@contextmanager
def watching(stream: TextIO, *, as_json: bool = False) -> Iterator[Show]:
    """A function that shows where experiments are; as JSON it is one line for each of them that has news."""
    if as_json:
        yield Lines(stream, ExperimentView.model_dump_json).show
        return
    console = Console(file=stream)
    if not console.is_terminal:
        yield Lines(stream).show
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield lambda views: live.update(table(views))


def table(views: Sequence[ExperimentView]) -> Table:
    """A row with a bar for each experiment."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("id", "name", "state"):
        made.add_column(column, no_wrap=True)
    made.add_column("progress", width=BAR_WIDTH)
    for column in ("epoch", "val top-1", "images/s", "ETA"):
        made.add_column(column, justify="right", no_wrap=True)
    for view in views:
        made.add_row(*_row(view))
    return made


def _row(view: ExperimentView) -> Iterator[Text | ProgressBar]:
    progress, live = view.progress, view.state not in TERMINAL
    top1 = view.metrics.get("val/top1")
    yield Text(view.id)
    yield Text(escaped_line(view.name))
    yield Text(f"{view.state} {view.reason or ''}".rstrip(), style=STYLES.get(view.state, "cyan"))
    yield ProgressBar(total=progress.total_steps or 1, completed=progress.step, width=BAR_WIDTH)
    yield Text(f"{progress.epoch}/{progress.epochs}" if progress.epochs else "")
    yield Text("" if top1 is None else f"{top1:.1%}")
    yield Text(f"{progress.images_per_second:.0f}" if progress.images_per_second and live else "")
    yield Text(_eta(view))


class Lines:
    """A line for each experiment every few seconds, and one for each change of state."""

    def __init__(self, stream: TextIO, line: Callable[[ExperimentView], str] | None = None) -> None:
        self._stream, self._line = stream, line or _line
        self._next: dict[str, float] = {}
        self._state: dict[str, str] = {}

    def show(self, views: Sequence[ExperimentView]) -> None:
        """Print the lines whose time has come."""
        now = time.monotonic()
        for view in views:
            moved = self._state.get(view.id) != view.state
            if moved or (view.state not in TERMINAL and now >= self._next[view.id]):
                self._state[view.id], self._next[view.id] = view.state, now + LINE_SECONDS
                print(escaped(self._line(view)), file=self._stream, flush=True)


def _line(view: ExperimentView) -> str:
    return f"{view.name:<24} {view.state:<9} {summary(view)}".rstrip()


def summary(view: ExperimentView) -> str:
    """One line: epoch, accuracy, speed, how long it will still take; the reason where there is one."""
    progress, parts = view.progress, []
    if progress.total_steps:
        of_training = f"epoch {progress.epoch}/{progress.epochs}"
        parts.append(f"measurement {progress.step}/{progress.total_steps}" if view.probe else of_training)
    known = [name for name in ("val/top1", "test/top1") if name in view.metrics]
    parts += [f"{name} {view.metrics[name]:.1%}" for name in known]
    if progress.images_per_second and view.state not in TERMINAL:
        parts.append(f"{progress.images_per_second:.0f} images/s")
    if eta := _eta(view):
        parts.append(f"ETA {eta}")
    if view.reason is not None:
        parts.append(str(view.reason))
    return "  ".join(parts)


def _eta(view: ExperimentView) -> str:
    seconds = view.progress.eta_seconds
    return "" if seconds is None or view.state in TERMINAL else str(timedelta(seconds=round(seconds)))
