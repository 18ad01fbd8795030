"""A line in the log for every request, and an id by which its other lines, and the user's complaint, are found."""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.log_format import log_context
from workers import tracing

log = logging.getLogger("service.access")
HEADER = "X-Request-ID"
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked for every few seconds; logged only where they fail
_USABLE = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessLog:
    """ASGI middleware. The id is the caller's own where it sends one that can be used, and is in every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on under an id, and note how it was answered."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _USABLE.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        tracing.annotate(**{"cbam.request_id": request_id})
        begin, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        with log_context(request_id=request_id):
            try:
                await self.app(scope, receive, noting)
            except Exception:
                status = status or 500  # which Starlette sends outside of all middleware
                raise
            finally:
                _note(scope, status, time.perf_counter() - begin)


def _note(scope: Scope, status: int, seconds: float) -> None:
    """The path without its query: a query may hold what is nobody's business."""
    if scope["path"] in QUIET and 0 < status < 400:
        return
    client = scope.get("client") or ("", 0)
    log.log(
        logging.WARNING if status >= 500 or status == 0 else logging.INFO,
        "%s %s",
        scope["method"],
        scope["path"],
        extra={
            "status": status or "cut off",
            "milliseconds": round(1000 * seconds, 1),
            "client": client[0],
            "experiment_id": scope.get("path_params", {}).get("experiment_id"),
        },
    )
