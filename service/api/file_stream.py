"""A file over HTTP: as a whole or one range of it (RFC 9110, 14), read in threads of its own.

Starlette's FileResponse opens the path again and reads to its end: of a file that grows it sends more than it has
announced, and of one that was swapped for a link, another file.
"""

import base64
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from functools import partial
from urllib.parse import quote

from anyio import CapacityLimiter, to_thread
from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.experiments.files import OpenFile

THREADS = 8  # of our own: slow storage must not take the threads that answer requests
CHUNK_BYTES = 256 * 1024
BINARY = "application/octet-stream"
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "log": "text/plain; charset=utf-8",
    "parquet": "application/vnd.apache.parquet",
    "pdf": "application/pdf",
    "png": "image/png",
    "svg": "image/svg+xml",
    "txt": "text/plain; charset=utf-8",
    "yaml": "application/yaml",
}
"""By the last part of the name; all else is `BINARY`."""
_RANGE = re.compile(r"bytes=\s*(\d{0,19})\s*-\s*(\d{0,19})\s*", re.ASCII)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*", re.ASCII)


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """The first byte and the one behind the last; None where it is not one range, which is as if there were no header.

    Raises HTTPException 416 where the file has none of the bytes.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[1] == match[2] == "":
        return None
    first, last = match[1], match[2]
    if first and last and int(last) < int(first):
        return None
    begin = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    if begin >= end:
        headers = {"Content-Range": f"bytes */{size}"}
        raise HTTPException(416, f"the file has {size} bytes, counted from 0", headers=headers)
    return begin, end


def headers_of(file: OpenFile, sha256: str | None) -> dict[str, str]:
    """What is said of a whole file; it is always for saving, never to be shown as a page of this server."""
    name = f'"{file.name}"' if _PLAIN_NAME.fullmatch(file.name) else ""
    disposition = f"filename={name}" if name else f"filename*=UTF-8''{quote(file.name, safe='')}"
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": MEDIA_TYPES.get(file.name.rsplit(".", 1)[-1].lower(), BINARY),
        "Content-Disposition": f"attachment; {disposition}",
        "ETag": file.etag,
        "Last-Modified": formatdate(file.status.st_mtime, usegmt=True),
    }
    if sha256 is not None:  # of the file, whichever part of it is sent (RFC 9530)
        headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:"
    return headers


def described(file: OpenFile, sha256: str | None) -> Response:
    """The answer to HEAD, which closes the file."""
    with file:
        return Response(headers=headers_of(file, sha256) | {"Content-Length": str(file.size)})


class FileResponse(StreamingResponse):
    """The bytes of a file from `begin` up to `end`; closes the file."""

    def __init__(
        self,
        file: OpenFile,
        span: tuple[int, int] | None,
        *,
        sha256: str | None,
        limiter: CapacityLimiter,
        goes_on: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Without a `span` the whole file. `goes_on` is asked before each chunk: False cuts the answer off."""
        self._file = file
        self._span = span or (0, file.size)
        self._limiter = limiter
        self._goes_on = goes_on
        begin, end = self._span
        headers = headers_of(file, sha256) | {"Content-Length": str(end - begin)}
        if span is not None:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
        self._chunks = self._read()
        super().__init__(self._chunks, status_code=200 if span is None else 206, headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, until the client leaves."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()

    async def stream_response(self, send: Send) -> None:
        """Send what was announced. A file that has become shorter ends the connection: nobody takes it for all."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        left = self._span[1] - self._span[0]
        async for chunk in self._chunks:
            left -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
        if self._span[0] == self._span[1]:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read(self) -> AsyncIterator[bytes]:
        offset, end = self._span
        while offset < end and (self._goes_on is None or await self._goes_on()):
            read = partial(self._file.read, offset, min(CHUNK_BYTES, end - offset))
            if not (chunk := await to_thread.run_sync(read, limiter=self._limiter)):
                return
            offset += len(chunk)
            yield chunk
