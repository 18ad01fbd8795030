"""The files of an experiment, listed and opened within its folder alone, whatever a path says or a link points to.

A path is walked folder by folder from descriptor to descriptor, and no link is followed on the way: nothing that is
swapped in between leads out. Left out are links, names that begin with a dot (files that are still being written),
checkpoints without their manifest (still being written, or being removed), and the records by which service and workers
know each other, for they hold an attempt's secret.
"""

import errno
import json
import os
import re
import stat
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from service.errors import NoSuchFile, ServerClosing, StorageUnavailable
from service.experiments.file_digests import FileDigests, version_of
from service.schemas.files import FileKind
from workers.protocol.storage import MANIFEST, ExperimentFolder

HASHED_AT_ONCE_BYTES = 1024 * 1024  # a smaller file's digest is in every list
LARGEST_MANIFEST_BYTES = 1024 * 1024
_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _ROOT | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe must not wait for its writer
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
_RECORDS = re.compile(r"mlflow_run\.json|attempts/[^/]+/(?:fence|result\.json)", re.IGNORECASE)
_KINDS = (
    (FileKind.SPEC, r"spec\.yaml"),
    (FileKind.LOG, r"attempts/.*\.log"),
    (FileKind.JOURNAL, r"tracking\..*"),
    (FileKind.CHECKPOINT, r"checkpoints/.*"),
    (FileKind.WEIGHTS, r"(?:.*/)?[^/]*\.safetensors"),
    (FileKind.PREDICTIONS, r"(?:.*/)?predictions[^/]*\.parquet"),
    (FileKind.FIGURE, r".*\.(?:png|svg|jpe?g|pdf)"),
    (FileKind.CONFUSION_MATRIX, r"(?:.*/)?[^/]*confusion[^/]*\.(?:json|csv)"),
    (FileKind.EXPORT, r"export/.*"),
)
"""The first that fits."""


@dataclass(frozen=True)
class StoredFile:
    """What is known of one version of a file; `sha256` is None where that would take long to say."""

    path: str
    kind: FileKind
    size: int
    modified: datetime
    sha256: str | None
    etag: str


@dataclass(frozen=True)
class UnreadableFile:
    """A file, or a folder, that is there and cannot be read, and why."""

    path: str
    detail: str


class OpenFile:
    """A file that was opened, as long as it was then: what is appended meanwhile is not part of it."""

    def __init__(self, path: str, descriptor: int, status: os.stat_result, sha256: str | None) -> None:
        self.path = path
        self.descriptor = descriptor
        self.status = status
        self.size = status.st_size
        self.etag = etag_of(status)
        self.sha256 = sha256

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def name(self) -> str:
        """Its name without folders."""
        return _name_of(self.path)

    def read(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset` on, none beyond the length that it was opened with."""
        return os.pread(self.descriptor, max(0, min(count, self.size - offset)), offset)

    def close(self) -> None:
        """Close it; twice is no error."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class ExperimentFiles:
    """The files of all experiments of one storage."""

    def __init__(self, storage: Path, closing: threading.Event) -> None:
        self._storage = storage
        self._digests = FileDigests(closing)

    def list(self, experiment_id: str) -> "list[StoredFile | UnreadableFile]":
        """Every file that there is, by path; none where the experiment has no folder yet.

        One that cannot be read is named, and does not hide the others. Raises StorageUnavailable where nothing can be
        read.
        """
        found: list[StoredFile | UnreadableFile] = []
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                with _told_apart(), self._folder(experiment_id, folder.split("/") if folder else ()) as descriptor:
                    inner, files = self._read(folder, descriptor)
                    folders += inner
                    found += files
            except NoSuchFile:  # it has not begun, or is being removed
                continue
            except StorageUnavailable as error:
                if not folder or isinstance(error, ServerClosing):
                    raise
                found.append(UnreadableFile(folder, str(error)))
        return sorted(found, key=lambda file: file.path)

    def open(self, experiment_id: str, path: str) -> OpenFile:
        """One file, to be closed by the caller. Raises NoSuchFile for what is not in the list; StorageUnavailable."""
        *folders, name = path.split("/")
        if not is_served(path):
            raise NoSuchFile
        with _told_apart(), self._folder(experiment_id, folders) as descriptor:
            opened = os.open(name, _FILE, dir_fd=descriptor)
            try:
                status = os.fstat(opened)
                manifest = _manifest_of(descriptor, or_none=not _is_checkpoint(path))
                if not stat.S_ISREG(status.st_mode) or not _is_whole(path, status, manifest):
                    raise NoSuchFile
                return OpenFile(path, opened, status, self._known(name, status, manifest))
            except BaseException:
                os.close(opened)
                raise

    def sha256(self, file: OpenFile) -> "Future[str]":
        """The digest of a file, computed in another thread unless it is known."""
        if file.sha256 is not None:
            known: Future[str] = Future()
            known.set_result(file.sha256)
            return known
        return self._digests.computed(file.descriptor, version_of(file.status))

    def close(self) -> None:
        """Compute nothing more."""
        self._digests.close()

    @contextmanager
    def _folder(self, experiment_id: str, folders: Sequence[str]) -> Iterator[int]:
        """The descriptor of a folder of the experiment."""
        descriptor = os.open(ExperimentFolder(self._storage, experiment_id).path.parent, _ROOT)
        try:
            for name in (experiment_id, *folders):
                inner = os.open(name, _FOLDER, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _read(self, folder: str, descriptor: int) -> "tuple[Sequence[str], Sequence[StoredFile | UnreadableFile]]":
        """The folders in a folder, and its files."""
        names = os.listdir(descriptor)
        folders: list[str] = []
        found: list[StoredFile | UnreadableFile] = []
        manifest = None
        if MANIFEST in names:
            try:
                manifest = _manifest_of(descriptor)
            except StorageUnavailable as error:
                names.remove(MANIFEST)
                found.append(UnreadableFile(_joined(folder, MANIFEST), str(error)))
        for path in (path for name in names if is_served(path := _joined(folder, name))):
            try:
                with _told_apart():
                    status = os.stat(_name_of(path), dir_fd=descriptor, follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        folders.append(path)
                    elif stat.S_ISREG(status.st_mode) and _is_whole(path, status, manifest):
                        found.append(self._stored(path, descriptor, status, manifest))
            except NoSuchFile:  # removed meanwhile
                continue
            except StorageUnavailable as error:
                if isinstance(error, ServerClosing):
                    raise
                found.append(UnreadableFile(path, str(error)))
        return folders, found

    def _stored(self, path: str, descriptor: int, status: os.stat_result, manifest: "_Manifest | None") -> StoredFile:
        """What is known of a file, which is opened: only so is it known that it can be read."""
        name = _name_of(path)
        opened = os.open(name, _FILE, dir_fd=descriptor)
        try:
            is_same = version_of(os.fstat(opened)) == version_of(status)  # else it has just been written to
            sha256 = self._known(name, status, manifest)
            if sha256 is None and is_same and status.st_size <= HASHED_AT_ONCE_BYTES:
                sha256 = self._digests.sha256(opened, version_of(status))
        finally:
            os.close(opened)
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        return StoredFile(path, kind_of(path), status.st_size, modified, sha256, etag_of(status))

    def _known(self, name: str, status: os.stat_result, manifest: "_Manifest | None") -> str | None:
        written = None if manifest is None else manifest.sha256(name, status)
        return written or self._digests.known(version_of(status))


@dataclass(frozen=True)
class _Manifest:
    """What stands beside files that were written as a whole: their sizes and digests."""

    status: os.stat_result
    files: Mapping[str, Any]

    def sha256(self, name: str, status: os.stat_result) -> str | None:
        """The digest of a file that is as the manifest says, and was not written after it."""
        told = self.files.get(name)
        if not isinstance(told, dict) or status.st_mtime_ns > self.status.st_mtime_ns:
            return None
        sha256 = told.get("sha256")
        return sha256 if told.get("bytes") == status.st_size and _is_digest(sha256) else None


def is_served(path: str) -> bool:
    """Whether a path is one of a file that may be shown: relative, plain, of no name that is hidden, and no record."""
    parts = path.split("/")
    plain = all(part and not part.startswith(".") and part.isprintable() for part in parts)
    return plain and _RECORDS.fullmatch(path) is None


def kind_of(path: str) -> FileKind:
    """What a file is for, by its path."""
    return next((kind for kind, pattern in _KINDS if re.fullmatch(pattern, path)), FileKind.OTHER)


def etag_of(status: os.stat_result) -> str:
    """A strong validator of a file's version, the same on every server of one storage."""
    return f'"{status.st_size:x}-{status.st_mtime_ns:x}"'


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _name_of(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _is_checkpoint(path: str) -> bool:
    return path.startswith("checkpoints/") and path.count("/") > 1


def _is_whole(path: str, status: os.stat_result, manifest: _Manifest | None) -> bool:
    """A checkpoint counts with its manifest, which is written last and removed first (workers/train/checkpoint.py)."""
    if not _is_checkpoint(path):
        return True
    told = None if manifest is None else manifest.files.get(_name_of(path))
    return manifest is not None and (told is None or told.get("bytes") == status.st_size)


def _manifest_of(descriptor: int, *, or_none: bool = False) -> _Manifest | None:
    """The manifest of a folder; None where there is none that makes sense.

    Raises StorageUnavailable where it cannot be read; with `or_none` that is None too.
    """
    try:
        with _told_apart(), open(os.open(MANIFEST, _FILE, dir_fd=descriptor), "rb") as file:
            status = os.fstat(file.fileno())
            content = json.loads(file.read(LARGEST_MANIFEST_BYTES)) if stat.S_ISREG(status.st_mode) else None
    except (NoSuchFile, ValueError):
        return None
    except StorageUnavailable:
        if or_none:
            return None
        raise
    if not isinstance(content, dict):
        return None
    files = content.get("files", {"state.pt": content})  # a checkpoint's tells of its one file
    return _Manifest(status, files if isinstance(files, dict) else {})


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


@contextmanager
def _told_apart() -> Iterator[None]:
    """What is not there, or is no plain file, is NoSuchFile; storage that fails is StorageUnavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in _ABSENT:
            raise NoSuchFile from error
        raise StorageUnavailable(f"shared storage cannot be read: {error.strerror}") from error
