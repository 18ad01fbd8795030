"""Serve the files of the web console from memory, each with its ETag and the policy that it works under."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

FOLDER = Path(__file__).parent / "static"
ROOT = "/console"
INDEX = "index.html"
MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
"""What is served; types and licences beside the scripts are not."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing unsafe: no inline script or style, and no request to another host."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # kept, and asked for anew: after an upgrade nobody mixes old and new modules
}
LOOKS = ("GET", "HEAD")


@dataclass(frozen=True)
class StaticFile:
    """One file, as it is sent."""

    body: bytes
    media_type: str
    etag: str


def read_files(folder: Path = FOLDER) -> dict[str, StaticFile]:
    """Read every file that is served, by its path below the folder."""
    return {
        path.relative_to(folder).as_posix(): _file(path.read_bytes(), MEDIA_TYPES[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in MEDIA_TYPES
    }


def _file(body: bytes, media_type: str) -> StaticFile:
    return StaticFile(body, f"{media_type}; charset=utf-8", f'"{hashlib.sha256(body).hexdigest()[:32]}"')


class ConsoleSite:
    """ASGI app below `/console`. A path names a file that was there at the start, or nothing: no disk is looked at."""

    def __init__(self, files: Mapping[str, StaticFile]) -> None:
        self.files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the file of the path."""
        await self.answer(scope)(scope, receive, send)

    def answer(self, scope: Scope) -> ASGIApp:
        """Return the response: the file, 304 where the client has it, 404, or 405."""
        if scope["method"] not in LOOKS:
            return PlainTextResponse("read only", 405, {"Allow": ", ".join(LOOKS)})
        below = scope["path"].removeprefix(scope.get("root_path", "")).removeprefix("/")
        file = self.files.get(below or INDEX)
        if file is None:
            return PlainTextResponse("the console has no such file", 404)
        headers = HEADERS | {"ETag": file.etag}
        if file.etag in _tags(Headers(scope=scope).get("if-none-match", "")):
            return Response(status_code=304, headers=headers)
        return Response(file.body, media_type=file.media_type, headers=headers)


def to_console() -> RedirectResponse:
    """Lead from the root to the console, also where a proxy has cut a prefix off: the place is a relative one."""
    return RedirectResponse(f"{ROOT.removeprefix('/')}/")


def _tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}
