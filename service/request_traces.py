"""A span for every request, where traces are wanted. It goes on with the caller's trace where the caller has one."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.request_log import QUIET
from workers import spans


class RequestTraces:
    """ASGI middleware. What is stored or started meanwhile belongs to the request's trace."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on within a span that is named by the route, never by the raw path."""
        if scope["type"] != "http" or scope["path"] in QUIET:
            await self.app(scope, receive, send)
            return
        parent = Headers(scope=scope).get("traceparent")
        method = scope["method"]
        with spans.span(method, "api", parent=parent, **{"http.request.method": method}) as span:

            async def noting(message: Message) -> None:
                if span is not None and message["type"] == "http.response.start":
                    route = getattr(scope.get("route"), "path", "unmatched")
                    span.update_name(f"{method} {route}")
                    span.set_attributes({"http.route": route, "http.response.status_code": message["status"]})
                    span.set_attribute("cbam.request_id", scope.get("state", {}).get("request_id", ""))
                await send(message)

            await self.app(scope, receive, noting)
