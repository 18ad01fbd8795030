"""What is refused before it reaches a route: other hosts (DNS rebinding) and bodies that are not JSON."""

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http_errors import problem

METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Guard:
    """ASGI middleware: the `Host` must be one of ours, a body must call itself JSON.

    A page on another site can make a browser send a form to a server on loopback, but not JSON without asking first.
    """

    def __init__(self, app: ASGIApp, *, hosts: Collection[str]) -> None:
        self.app = app
        self.hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer with a problem."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "").rsplit(":", 1)[0] if not headers.get("host", "").endswith("]") else ""
            host = host or headers.get("host", "")
            if host.lower() not in self.hosts:
                await problem(400, f"this server is not {host!r}")(scope, receive, send)
                return
            if _has_body(scope, headers) and not _is_json(headers):
                await problem(415, "send the body as application/json")(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _has_body(scope: Scope, headers: Headers) -> bool:
    length = headers.get("content-length", "0")
    return scope["method"] in METHODS_WITH_BODY and (length != "0" or "transfer-encoding" in headers)


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").split(";")[0].strip().lower() == "application/json"
