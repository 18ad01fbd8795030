"""HEAD wherever there is GET (RFC 9110, 9.3.2): the same headers, and no body."""

from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

STREAM = "/stream"  # has no end of its own, and so no headers that a HEAD could ask for
LINKS = "/v1/downloads/"  # work once: to look would be to use


class HeadRequests:
    """ASGI middleware, the innermost. Asks a route that knows no HEAD of its own as GET, and drops the body."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on."""
        if scope["type"] != "http" or scope["method"] != "HEAD" or _is_none_to_look_at(scope["path"]):
            await self.app(scope, receive, send)
            return
        refused = False

        async def unless_refused(message: Message) -> None:
            nonlocal refused
            refused = refused or message.get("status") == HTTPStatus.METHOD_NOT_ALLOWED
            if not refused:
                await send(message)

        await self.app(scope, receive, unless_refused)
        if not refused:
            return
        as_get = {**scope, "method": "GET"}

        async def without_body(message: Message) -> None:
            scope["route"] = as_get.get("route")  # for those who count and log
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self.app(as_get, receive, without_body)


def _is_none_to_look_at(path: str) -> bool:
    return path.endswith(STREAM) or path.startswith(LINKS)
