"""The client's calls about the files of an experiment: list them, download them."""

import errno
import logging
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from service.client.download import Download, Downloaded, Report, digest_of, is_there, local_path
from service.client.errors import (
    CannotWrite,
    DownloadDamaged,
    DownloadIncomplete,
    FileUnreadable,
    NoFileMatches,
    NotFound,
    NotReady,
    UnsafePath,
)
from service.client.transport import Transport, path
from service.errors import ServiceError
from service.schemas.files import FileList, FileView, UnreadableFileView

log = logging.getLogger(__name__)
MOST_NAMED = 8  # of the files that there are, where none matches
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})  # what no other file would fare better with


class FileCalls:
    """Part of `Client`."""

    wire: Transport

    def files(self, experiment_id: str, pattern: str = "*") -> list[FileView]:
        """The files of an experiment, by path; of those, what matches.

        A pattern of the shell (`*`, `?`, `[abc]`) is held against the whole path, in which `*` goes over `/` too, and
        against the name alone: `*`, `export/*`, `*.log`, `model.safetensors`.
        """
        found = self.list_files(experiment_id, pattern)
        for one in found.unreadable:
            log.warning("%s of %s is not listed: %s", one.path, experiment_id, one.detail)
        return found.items

    def list_files(self, experiment_id: str, pattern: str = "*") -> FileList:
        """The same, and beside them what the server cannot read at the moment."""
        place, query = path("/v1/experiments", experiment_id, "files"), dict[str, Any]()
        items, unreadable = list[FileView](), list[UnreadableFileView]()
        while True:
            page = self.wire.get(FileList, place, params=query)
            items += [file for file in page.items if _matches(file.path, pattern)]
            unreadable += [file for file in page.unreadable if _matches(file.path, pattern)]
            if page.next_cursor is None:
                return FileList(items=items, unreadable=unreadable)
            query["cursor"] = page.next_cursor

    def download(
        self, experiment_id: str, pattern: str = "*", to: Path | str | None = None, *, progress: bool = False
    ) -> list[Path]:
        """Download the files that match into a folder (one of the experiment's id where left out); gives their paths.

        Each is checked by its SHA-256. One that is there already is not fetched again, and one that was cut off is gone
        on with, also by the next call. `progress` shows a bar on a terminal, plain lines elsewhere (stderr). One that
        fails does not stop the others. Raises at the end, where one has failed, DownloadDamaged, CannotWrite,
        UnsafePath or FileUnreadable, and for several DownloadIncomplete, which names each; NoFileMatches.
        """
        from service.client.download_display import downloading

        wanted = self.wanted_files(experiment_id, pattern)
        results = []
        with downloading(sys.stderr if progress else None, wanted.items) as display:
            for done in self.downloads(experiment_id, wanted.items, to, report=display.report):
                display.done(done)
                results.append(done)
                if done.path is None and done.error is None:
                    log.warning("%s of %s has been removed meanwhile", done.file.path, experiment_id)
        require_all(wanted, results)
        return [done.path for done in results if done.path is not None]

    def wanted_files(self, experiment_id: str, pattern: str) -> FileList:
        """The files that match, and those that do and cannot be read. Raises NoFileMatches where there are none."""
        wanted = self.list_files(experiment_id, pattern)
        if wanted.items or wanted.unreadable:
            return wanted
        there = [file.path for file in self.list_files(experiment_id).items]
        some = ", ".join(there[:MOST_NAMED]) + ", …" * (len(there) > MOST_NAMED)
        raise NoFileMatches(
            f"no file of {experiment_id} matches {pattern!r}; there are {some}"
            if there
            else f"{experiment_id} has no files yet"
        )

    def downloads(
        self, experiment_id: str, files: Sequence[FileView], to: Path | str | None, *, report: Report
    ) -> Iterator[Downloaded]:
        """Download files one after the other, as `download` does; each is given as soon as it is there, or has failed.

        Raises what the next file would meet too: a full disk, a server that is away or refuses.
        """
        folder = Path(experiment_id if to is None else to)
        is_ready = True
        for file in files:
            place = path("/v1/experiments", experiment_id, "files", *PurePosixPath(file.path).parts)
            try:
                yield self._downloaded(file, place, folder, report)
            except NotFound:
                yield Downloaded(file, None)
            except NotReady as error:  # of one file, or of the whole server: the next one will show
                if not is_ready:
                    raise
                is_ready = False
                yield Downloaded(file, None, error=FileUnreadable(f"{file.path}: {error}"))
                continue
            except (CannotWrite, DownloadDamaged, UnsafePath) as error:
                if isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM:
                    raise
                yield Downloaded(file, None, error=error)
            is_ready = True

    def _downloaded(self, file: FileView, place: str, folder: Path, report: Report) -> Downloaded:
        target = local_path(folder, file.path)
        try:
            if is_there(target, file, partial(self._digest, file, place)):
                return Downloaded(file, target, was_there=True)
        except OSError as error:
            raise CannotWrite(f"{target} cannot be looked at: {error.strerror}") from error
        Download(self.wire, place, file, target).fetch(report)
        return Downloaded(file, target)

    def _digest(self, file: FileView, place: str) -> str | None:
        """The SHA-256 of a file as the server has it now, asked for unless it was told with the list."""
        if file.sha256 is not None:
            return file.sha256
        return digest_of(self.wire.send("HEAD", place, params={"sha256": "true"}))


def _matches(file: str, pattern: str) -> bool:
    return fnmatchcase(file, pattern) or fnmatchcase(PurePosixPath(file).name, pattern)


def require_all(wanted: FileList, results: Sequence[Downloaded]) -> None:
    """Raise what stood against a file that was wanted; DownloadIncomplete, which names each, against several."""
    errors: list[ServiceError] = [one.error for one in results if one.error is not None]
    errors += [FileUnreadable(f"{one.path} cannot be downloaded: {one.detail}") for one in wanted.unreadable]
    if len(errors) == 1:
        raise errors[0]
    if errors:
        fetched = sum(one.path is not None for one in results)
        raise DownloadIncomplete(
            "\n  ".join([f"{len(errors)} files could not be downloaded, {fetched} are there:", *map(str, errors)])
        )
