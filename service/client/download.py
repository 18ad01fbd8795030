"""One file from the server: fetched in as many pieces as the network allows, and kept once its SHA-256 is right."""

import base64
import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path, PurePosixPath

import httpx2

from service.client.errors import ApiError, CannotWrite, DownloadDamaged, UnsafePath
from service.client.transport import PATIENCE, Backoff, Transport, refusal
from service.errors import ServiceError
from service.schemas.files import FileView

LEADS_AWAY = "/\\:" if os.name == "nt" else "/"
NOT_NOW = frozenset({429, 503})
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")
Report = Callable[[FileView, int], None]
"""Is told how many bytes of a file are there."""


@dataclass(frozen=True)
class Downloaded:
    """A file that was asked for.

    `path` is None where it failed, by `error`, or where it is gone: a checkpoint is removed when a newer one is there.
    """

    file: FileView
    path: Path | None
    was_there: bool = False
    error: ServiceError | None = None


def local_path(folder: Path, path: str) -> Path:
    """Where a file of the server goes. Raises UnsafePath where that is not within the folder."""
    parts = PurePosixPath(path).parts
    if not parts or not all(_is_plain(part) for part in parts):
        raise UnsafePath(f"the server names a file {path!r}, which is not put into a folder")
    return folder.joinpath(*parts)


def _is_plain(name: str) -> bool:
    """Whether it stays where it is put, and where everybody sees it: on Windows a colon or a backslash leads away."""
    return not name.startswith(".") and name.isprintable() and not set(name) & set(LEADS_AWAY)


def is_there(target: Path, file: FileView, digest: Callable[[], str | None]) -> bool:
    """Whether the target holds these very bytes; `digest` is asked for theirs only where the size is right."""
    if not target.is_file() or target.stat().st_size != file.size:
        return False
    with target.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == digest()


def digest_of(answer: httpx2.Response) -> str | None:
    """The SHA-256 of the whole file, in hexadecimal, where the server tells it."""
    told = _DIGEST.search(answer.headers.get("Repr-Digest", ""))
    return base64.b64decode(told[1]).hex() if told else None


class Download:
    """One file on its way. What has arrived lies beside the target, named by its version, and is gone on with."""

    def __init__(self, wire: Transport, place: str, file: FileView, target: Path) -> None:
        self._wire = wire
        self._place = place
        self._file = file
        self._target = target
        self._etag = file.etag
        version = hashlib.sha256(f"{file.etag} {target.name}".encode()).hexdigest()[:16]
        self._part = target.with_name(f".{target.name[:32]}.{version}.part")  # a name may be as long as names may be

    def fetch(self, report: Report) -> None:
        """Fetch it. A cut connection is taken up again where it was cut, also by the next call.

        Raises DownloadDamaged where the bytes are not those that the server has, CannotWrite; ApiError;
        ServerUnreachable.
        """
        try:
            self._target.parent.mkdir(parents=True, exist_ok=True)
            with self._part.open("a+b") as part:
                self._fill(part, report)
            self._part.replace(self._target)
        except OSError as error:
            raise CannotWrite(f"{self._target} cannot be written: {error.strerror}") from error

    def _fill(self, part: BufferedRandom, report: Report) -> None:
        pauses, most = Backoff(self._wire.tries * PATIENCE, self._wire.random), part.seek(0, 2)

        def arrived(count: int) -> None:
            nonlocal most
            if count > most:  # what comes a second time is no headway
                most = count
                pauses.renew()
            report(self._file, count)

        while True:
            try:
                self._append(part, arrived)
                return
            except httpx2.TransportError as error:
                if not pauses.another():
                    raise self._wire.unreachable(error) from error
            except ApiError as error:
                if error.status not in NOT_NOW or not pauses.another(error.retry_after):
                    raise

    def _append(self, part: BufferedRandom, arrived: Callable[[int], None]) -> None:
        """Ask for what is missing, and append it. The last byte is asked for twice: a range may not be empty."""
        begin = max(0, min(part.seek(0, 2), self._file.size) - 1)
        headers = {"Accept-Encoding": "identity"}  # bytes that a proxy packs are not those of the range
        if begin:
            headers |= {"Range": f"bytes={begin}-", "If-Range": self._etag}
        with self._wire.http.stream("GET", self._place, params={"sha256": "true"}, headers=headers) as answer:
            if not answer.is_success:
                answer.read()
                raise refusal(answer)
            begin = begin if answer.status_code == httpx2.codes.PARTIAL_CONTENT else 0  # else it has changed
            self._etag = answer.headers.get("ETag", "")
            part.truncate(begin)
            for chunk in answer.iter_bytes():  # as they arrive: what a cut would lose of a larger piece is lost
                begin += part.write(chunk)
                part.flush()
                arrived(begin)
        self._check(part, digest_of(answer))

    def _check(self, part: BufferedRandom, expected: str | None) -> None:
        part.seek(0)
        if hashlib.file_digest(part, "sha256").hexdigest() != expected:
            part.truncate(0)  # the next call begins anew
            words = "which it does not tell" if expected is None else "it was damaged on its way, or is damaged there"
            raise DownloadDamaged(f"{self._file.path} does not have the SHA-256 that it has on the server: {words}")
