"""Progress for the person who watches: a bar with ETA on a terminal, plain lines in a pipe."""

import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Protocol, TextIO

from workers.protocol.progress import Progress

_LINE_SECONDS = 5.0


class Display(Protocol):
    """Shows progress as it comes."""

    def show(self, progress: Progress) -> None:
        """The training is here now."""


class Silence:
    """Shows nothing: the ranks beside the first."""

    def show(self, progress: Progress) -> None:
        """Nothing."""


class Lines:
    """One plain line every few seconds, and one for every change of phase but the frequent one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._next = 0.0
        self._epoch = -1

    def show(self, progress: Progress) -> None:
        """Print a line if it is time, or an epoch has ended."""
        now = time.monotonic()
        if now < self._next and progress.epoch == self._epoch:
            return
        self._next, self._epoch = now + _LINE_SECONDS, progress.epoch
        print(f"{progress.phase}  {summary_of(progress)}", file=self._stream, flush=True)


class Bar:
    """A progress bar with what is left to wait."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            TextColumn("{task.fields[phase]:<10}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=Console(file=stream),
        )
        self._task = self._rich.add_task("", total=None, phase="starting")

    def show(self, progress: Progress) -> None:
        """Move the bar."""
        self._rich.update(
            self._task,
            total=progress.total_steps or None,
            completed=progress.step,
            description=summary_of(progress),
            phase=progress.phase,
        )

    def __enter__(self) -> "Bar":
        self._rich.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._rich.stop()


def summary_of(progress: Progress) -> str:
    """One line: epoch, step, how long it will still take, speed, and the latest metrics."""
    parts = [f"epoch {progress.epoch}/{progress.epochs}", f"step {progress.step}/{progress.total_steps}"]
    if progress.eta_seconds is not None:
        parts.append(f"ETA {timedelta(seconds=round(progress.eta_seconds))}")
    if progress.images_per_second is not None:
        parts.append(f"{progress.images_per_second:.0f} images/s")
    parts += [f"{name} {value:.4g}" for name, value in progress.metrics.items()]
    return "  ".join(parts)


@contextlib.contextmanager
def display_for(stream: TextIO, *, quiet: bool = False) -> Iterator[Display]:
    """A bar where somebody sees it, lines where a file or a pipe takes them."""
    if quiet:
        yield Silence()
    elif stream.isatty():
        with Bar(stream) as bar:
            yield bar
    else:
        yield Lines(stream)
