"""Downloads for the person who waits for them: one bar with ETA on a terminal, a line for each file in a pipe."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cbam_core.printable import escaped_line
from service.client.download import Downloaded
from service.schemas.files import FileView


class Display:
    """Shows nothing."""

    def report(self, file: FileView, count: int) -> None:
        """So many bytes of a file are there."""

    def done(self, one: Downloaded) -> None:
        """There is nothing more to do for a file."""


class Lines(Display):
    """A line for each file that is done."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def done(self, one: Downloaded) -> None:
        """Print its line."""
        size = "failed" if one.error is not None else size_of(one.file.size)
        print(f"{size:>9}  {escaped_line(one.file.path)}", file=self._stream, flush=True)


class Bar(Display):
    """One bar for all of them, with the name of the one that comes."""

    def __init__(self, progress: Progress, files: Sequence[FileView]) -> None:
        self._progress = progress
        self._before = 0  # bytes of files that are done
        self._task = progress.add_task("", total=sum(file.size for file in files))

    def report(self, file: FileView, count: int) -> None:
        """Move the bar; a log may have become longer than it was listed."""
        name = escaped_line(file.path)
        self._progress.update(self._task, completed=self._before + min(count, file.size), description=name)

    def done(self, one: Downloaded) -> None:
        """Move the bar to the end of the file."""
        self._before += one.file.size
        self._progress.update(self._task, completed=self._before)


@contextmanager
def downloading(stream: TextIO | None, files: Sequence[FileView]) -> Iterator[Display]:
    """What shows the files as they come; nothing without a stream."""
    if stream is None:
        yield Display()
        return
    console = Console(file=stream)
    if not console.is_terminal:
        yield Lines(stream)
        return
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.description}", markup=False), console=console) as progress:
        yield Bar(progress, files)


def size_of(count: int) -> str:
    """Bytes as people read them: 512 B, 1.1 MB; a kB has 1000."""
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.95 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{count} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
