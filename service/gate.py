"""Who is it? Every request passes here before anything else looks at it; what has no name goes no further."""

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from service.http_errors import problem
from service.roles import LOCAL, Caller
from service.settings import is_loopback
from service.tokens import Tokens

OPEN_PATHS = frozenset({"/healthz", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"})
OPEN_FOLDER = "/static-offline-docs/"  # what the pages above are made of
READY_PATH = "/readyz"  # open too, but tells more to those who have a token
FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"})
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="cbam-lab"'}


class Gate:
    """ASGI middleware: finds the caller, kept as `request.state.caller`, or answers 401.

    While no token was ever made, a server on loopback takes everybody for `local`, an admin: it is their own machine.
    What a proxy forwarded is not: whoever stands before the proxy may be anywhere.
    The pages in `OPEN_PATHS` tell nothing that differs between two installations.
    """

    def __init__(self, app: ASGIApp, *, tokens: Tokens, on_loopback: bool) -> None:
        self.app = app
        self.tokens = tokens
        self.on_loopback = on_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with the caller's name, or answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, secret, caller = scope["path"], _bearer(Headers(scope=scope)), None
        refusal = None
        if path not in OPEN_PATHS and not path.startswith(OPEN_FOLDER):
            try:
                caller = await run_in_threadpool(self._caller, secret, self._is_own_machine(scope))
            except OperationalError:
                refusal = problem(503, "the database does not answer", instance=path, headers={"Retry-After": "2"})
            else:
                detail = "this needs a token" if secret is None else "this token is not known, or no longer"
                refusal = problem(401, detail, instance=path, headers=CHALLENGE) if caller is None else None
        scope.setdefault("state", {})["caller"] = caller
        await (self.app if refusal is None or path == READY_PATH else refusal)(scope, receive, send)

    def _is_own_machine(self, scope: Scope) -> bool:
        """By the setting, and by the address that was in fact connected to: they may differ."""
        host, _ = scope.get("server") or ("", 0)
        return self.on_loopback and is_loopback(host) and FORWARDED.isdisjoint(Headers(scope=scope))

    def _caller(self, secret: str | None, is_own_machine: bool) -> Caller | None:
        caller = None if secret is None else self.tokens.caller(secret)
        if caller is None and is_own_machine and not self.tokens.exist():
            return LOCAL
        return caller


def _bearer(headers: Headers) -> str | None:
    """The token of the request; empty where the header holds something else."""
    header = headers.get("authorization")
    if header is None:
        return None
    scheme, _, secret = header.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""
