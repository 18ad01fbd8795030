"""The client's calls about the files of an experiment: list them, download them."""

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from service.client.download import Download, Report, digest_of, is_there, local_path
from service.client.errors import NoFileMatches, NotFound
from service.client.transport import Transport, path
from service.schemas.files import FileList, FileView

log = logging.getLogger(__name__)
MOST_NAMED = 8  # of the files that there are, where none matches


@dataclass(frozen=True)
class Downloaded:
    """A file that was asked for. `path` is None where it is gone: a checkpoint is removed when a newer one is there."""

    file: FileView
    path: Path | None
    was_there: bool = False


class FileCalls:
    """Part of `Client`."""

    wire: Transport

    def files(self, experiment_id: str, pattern: str = "*") -> list[FileView]:
        """The files of an experiment, by path; of those, what matches.

        A pattern of the shell (`*`, `?`, `[abc]`) is held against the whole path, in which `*` goes over `/` too, and
        against the name alone: `*`, `export/*`, `*.log`, `model.safetensors`.
        """
        place, query, found = path("/v1/experiments", experiment_id, "files"), dict[str, Any](), list[FileView]()
        while True:
            page = self.wire.get(FileList, place, params=query)
            found += page.items
            if page.next_cursor is None:
                return [file for file in found if _matches(file.path, pattern)]
            query["cursor"] = page.next_cursor

    def download(
        self, experiment_id: str, pattern: str = "*", to: Path | str | None = None, *, progress: bool = False
    ) -> list[Path]:
        """Download the files that match into a folder (one of the experiment's id where left out); gives their paths.

        Each is checked by its SHA-256. One that is there already is not fetched again, and one that was cut off is gone
        on with, also by the next call. `progress` shows a bar on a terminal, plain lines elsewhere (stderr). Raises
        NoFileMatches, DownloadDamaged, CannotWrite.
        """
        from service.client.download_display import downloading

        wanted = self.wanted_files(experiment_id, pattern)
        paths = []
        with downloading(sys.stderr if progress else None, wanted) as display:
            for done in self.downloads(experiment_id, wanted, to, report=display.report):
                display.done(done.file)
                if done.path is None:
                    log.warning("%s of %s has been removed meanwhile", done.file.path, experiment_id)
                else:
                    paths.append(done.path)
        return paths

    def wanted_files(self, experiment_id: str, pattern: str) -> list[FileView]:
        """The files that match. Raises NoFileMatches where none does."""
        if wanted := self.files(experiment_id, pattern):
            return wanted
        there = [file.path for file in self.files(experiment_id)]
        some = ", ".join(there[:MOST_NAMED]) + ", …" * (len(there) > MOST_NAMED)
        raise NoFileMatches(
            f"no file of {experiment_id} matches {pattern!r}; there are {some}"
            if there
            else f"{experiment_id} has no files yet"
        )

    def downloads(
        self, experiment_id: str, files: list[FileView], to: Path | str | None, *, report: Report
    ) -> Iterator[Downloaded]:
        """Download files one after the other, as `download` does; each is given as soon as it is there."""
        folder = Path(experiment_id if to is None else to)
        for file, target in [(file, local_path(folder, file.path)) for file in files]:
            place = path("/v1/experiments", experiment_id, "files", *PurePosixPath(file.path).parts)
            try:
                if is_there(target, file, partial(self._digest, file, place)):
                    yield Downloaded(file, target, was_there=True)
                    continue
                Download(self.wire, place, file, target).fetch(report)
            except NotFound:
                yield Downloaded(file, None)
                continue
            yield Downloaded(file, target)

    def _digest(self, file: FileView, place: str) -> str | None:
        """The SHA-256 of a file as the server has it now, asked for unless it was told with the list."""
        if file.sha256 is not None:
            return file.sha256
        return digest_of(self.wire.send("HEAD", place, params={"sha256": "true"}))


def _matches(file: str, pattern: str) -> bool:
    return fnmatchcase(file, pattern) or fnmatchcase(PurePosixPath(file).name, pattern)
