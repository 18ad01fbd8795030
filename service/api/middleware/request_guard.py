"""What is refused before it reaches a route: other hosts (DNS rebinding), and bodies too long or not JSON."""

import asyncio
import re
import time
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.problems import problem

METHODS_WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_PORT = re.compile(r":\d*$")


class RequestGuard:
    """ASGI middleware: the `Host` must be one of ours, a body must call itself JSON and keep to its limit.

    A page on another site can make a browser send a form to a server on loopback, but not JSON without asking first.
    (FastAPI has a body limit of its own, but answers it in plain text where a length is announced.)
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str], body_limit_bytes: int, slow_client_seconds: float
    ) -> None:
        self.app = app
        self.hosts = frozenset(hosts)
        self.body_limit_bytes = body_limit_bytes
        self.slow_client_seconds = slow_client_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer with a problem."""
        refusal = self._refusal(scope, Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self.app)(scope, self._counting(receive), send)

    def _counting(self, receive: Receive) -> Receive:
        """A body that does not announce its length is cut while it is read, and one that drips in is not waited for."""
        seen, is_whole = 0, False
        deadline = time.monotonic() + self.slow_client_seconds

        async def counted() -> Message:
            nonlocal seen, is_whole
            if is_whole:
                return await receive()  # which waits until the client leaves
            try:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(
                    408, f"the body did not come within {self.slow_client_seconds:g} seconds"
                ) from error
            is_whole = not message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > self.body_limit_bytes:
                raise HTTPException(413, f"the body is over {self.body_limit_bytes} bytes")
            return message

        return counted

    def _refusal(self, scope: Scope, headers: Headers) -> ASGIApp | None:
        host = _PORT.sub("", headers.get("host", "")).lower()
        if host not in self.hosts:
            return problem(400, f"this server is not {host!r}")
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.body_limit_bytes:
            return problem(413, f"the body is over {self.body_limit_bytes} bytes", instance=scope["path"])
        has_body = scope["method"] in METHODS_WITH_BODY and (length != "0" or "transfer-encoding" in headers)
        if has_body and headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
            return problem(415, "send the body as application/json", instance=scope["path"])
        return None
