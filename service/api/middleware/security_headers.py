"""What every answer tells a browser: take nothing for what it is not, show it in no frame, keep no copy."""

import base64
import hashlib
import re
from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGES = frozenset({"/docs", "/docs/oauth2-redirect"})
STATIC = "/static-offline-docs/"
EVERYWHERE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FOR_PROGRAMS = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cache-Control": "no-store"}
FOR_PAGES = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "script-src 'self'"
)
_INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


class SecurityHeaders:
    """ASGI middleware. The pages for people may run the scripts that are in them, named by their hashes, no other."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, and add the headers to the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        is_page = scope["path"] in PAGES
        start: Message = {}

        async def adding(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                if is_page:  # its hashes are known once its text is
                    start = message
                    return
                _add(message, {} if scope["path"].startswith(STATIC) else FOR_PROGRAMS)
            elif start:
                _add(start, {"Content-Security-Policy": page_policy(message.get("body", b""))})
                first, start = start, {}
                await send(first)
            await send(message)

        await self.app(scope, receive, adding)


def page_policy(page: bytes) -> str:
    """The policy of a page that holds inline scripts."""
    digests = (hashlib.sha256(script).digest() for script in _INLINE_SCRIPT.findall(page))
    return " ".join((FOR_PAGES, *(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)))


def _add(start: Message, more: Mapping[str, str]) -> None:
    headers = MutableHeaders(scope=start)
    for name, value in (EVERYWHERE | dict(more)).items():
        headers.setdefault(name, value)
