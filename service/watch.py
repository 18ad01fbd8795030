"""Progress of experiments for the person who watches: bars with ETA on a terminal, plain lines in a pipe."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn

from service.schemas import ExperimentView
from service.states import TERMINAL

LINE_SECONDS = 5.0
STYLES = {"SUCCEEDED": "green", "FAILED": "red", "CANCELLED": "yellow"}
Show = Callable[[Sequence[ExperimentView]], None]


@contextmanager
def watching(stream: TextIO) -> Iterator[Show]:
    """A function that shows where experiments are."""
    console = Console(file=stream)
    if console.is_terminal:
        with Bars(console) as bars:
            yield bars.show
    else:
        yield Lines(stream).show


class Bars:
    """A bar for each experiment."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.fields[title]}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
        )
        self._rich = Progress(*columns, console=console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._rich.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._rich.stop()

    def show(self, views: Sequence[ExperimentView]) -> None:
        """Move the bars."""
        for view in views:
            if view.id not in self._tasks:
                self._tasks[view.id] = self._rich.add_task("", total=None, title=_escape(view.name))
            style = STYLES.get(view.state, "cyan")
            self._rich.update(
                self._tasks[view.id],
                total=view.progress.total_steps or None,
                completed=view.progress.step,
                description=f"[{style}]{view.state:<9}[/] {_escape(summary(view))}",
            )


class Lines:
    """A line for each experiment every few seconds, and one for each change of state."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next: dict[str, float] = {}
        self._state: dict[str, str] = {}

    def show(self, views: Sequence[ExperimentView]) -> None:
        """Print the lines whose time has come."""
        now = time.monotonic()
        for view in views:
            moved = self._state.get(view.id) != view.state
            if moved or (view.state not in TERMINAL and now >= self._next[view.id]):
                self._state[view.id], self._next[view.id] = view.state, now + LINE_SECONDS
                print(f"{view.name:<24} {view.state:<9} {summary(view)}".rstrip(), file=self._stream, flush=True)


def summary(view: ExperimentView) -> str:
    """One line: epoch, accuracy, speed, how long it will still take; the reason where there is one."""
    progress, parts = view.progress, []
    if progress.total_steps:
        parts.append(f"epoch {progress.epoch}/{progress.epochs}")
    if (top1 := view.metrics.get("val/top1")) is not None:
        parts.append(f"top1 {top1:.1%}")
    if progress.images_per_second and view.state not in TERMINAL:
        parts.append(f"{progress.images_per_second:.0f} images/s")
    if progress.eta_seconds is not None and view.state not in TERMINAL:
        parts.append(f"ETA {timedelta(seconds=round(progress.eta_seconds))}")
    if view.reason is not None:
        parts.append(str(view.reason))
    return "  ".join(parts)


def _escape(text: str) -> str:
    return text.replace("[", "\\[")
