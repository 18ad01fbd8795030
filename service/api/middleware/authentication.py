"""Who is it? Every request passes here before anything else looks at it; what has no name goes no further."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakValueDictionary

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.middleware.origins import foreign_origin
from service.api.problems import no_database, problem
from service.auth.audit import AuditLog, Entry
from service.auth.rate_limit import TokenBuckets, network_of
from service.auth.tokens import Tokens, fingerprint
from service.domain.roles import LOCAL, Caller
from service.domain.values import utc_now
from service.redaction import redact
from service.settings import Settings
from workers.protocol.addresses import is_loopback

OPEN_PATHS = frozenset({"/", "/console", "/healthz", "/docs", "/docs/oauth2-redirect", "/openapi.json"})
OPEN_FOLDERS = ("/console/", "/static-offline-docs/")  # what the pages for people are made of
LINKS = "/v1/downloads/"  # open too: a link brings its own secret, and works once
READY_PATH = "/readyz"  # open too, but tells more to those who have a token
FORWARDED = frozenset({"forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"})
LOOKS = frozenset({"GET", "HEAD", "OPTIONS"})
MOST_WELCOME = 1024
STAY_SECONDS = 5.0
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="cbam-lab"'}


class TokenRecheck:
    """Whether a caller who was let in may stay: what a stream asks before it tells more, for it may outlast a token.

    All streams of a token share one, and one question.
    """

    def __init__(self, find: Callable[[], Caller | None]) -> None:
        self._find = find
        self._ask_at = time.monotonic() + STAY_SECONDS
        self._is_in = True

    async def goes_on(self) -> bool:
        """Looked up again where the last time is some seconds ago. A database that is away shuts nobody out."""
        if self._is_in and time.monotonic() >= self._ask_at:
            self._ask_at = time.monotonic() + STAY_SECONDS
            with suppress(OperationalError):
                self._is_in = await run_in_threadpool(self._find) is not None
        return self._is_in


class Authentication:
    """ASGI middleware: finds the caller, kept as `request.state.caller`, or answers 401, or 429 to whoever hurries.

    While no token was ever made, a server on loopback takes everybody for `local`, an admin: it is their own machine.
    What a proxy forwarded is not: whoever stands before the proxy may be anywhere.
    The pages in `OPEN_PATHS` tell nothing that differs between two installations. Below `LINKS` a secret in the query
    stands for one file (`service.auth.file_links`).
    """

    def __init__(self, app: ASGIApp, *, tokens: Tokens, audit: AuditLog, settings: Settings) -> None:
        self.app = app
        self.tokens = tokens
        self.audit = audit
        self.on_loopback = settings.on_loopback
        self.allowed_hosts = frozenset(settings.allowed_hosts)
        self.requests = TokenBuckets(per_second=settings.rate_per_second, burst=settings.rate_burst)
        minutely = settings.failed_logins_per_minute
        self.failures = TokenBuckets(per_second=minutely / 60, burst=minutely)
        self.wrong_links = TokenBuckets(per_second=minutely / 60, burst=minutely)
        self.stays: WeakValueDictionary[tuple[str, bool], TokenRecheck] = WeakValueDictionary()  # of those who are here
        self.welcome: OrderedDict[str, None] = OrderedDict()  # fingerprints of tokens that were good lately

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on with the caller's name, or answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["caller"] = None
        if scope["path"] in OPEN_PATHS or scope["path"].startswith(OPEN_FOLDERS):
            await self.app(scope, receive, send)
            return
        if scope["path"].startswith(LINKS):
            await self._use_link(scope, receive, send)
            return
        refusal = await self._refusal(scope, state)
        answer = self.app if refusal is None or scope["path"] == READY_PATH else refusal
        await answer(scope, receive, self._noting(scope, send))

    async def _refusal(self, scope: Scope, state: dict[str, Any]) -> ASGIApp | None:
        """Find the caller. Returns what to answer instead of passing on."""
        headers = Headers(scope=scope)
        path, secret = scope["path"], _bearer(headers)
        if scope["method"] not in LOOKS and (origin := foreign_origin(headers, self.allowed_hosts)) is not None:
            return problem(403, f"a page of another site ({origin!r}) may not change anything here", instance=path)
        network = network_of(_address(scope))
        wait = self.failures.wait_seconds(network)
        if wait and (secret is None or fingerprint(secret) not in self.welcome):
            return _later(path, wait, "too many requests without a good token came from this address")
        is_own_machine = self._is_own_machine(scope)
        try:
            caller = await run_in_threadpool(self.find, secret, is_own_machine)
        except OperationalError as error:
            return no_database(error, instance=path)
        if caller is None:
            if path != READY_PATH or secret is not None:  # what looks whether the server is ready has none
                self.failures.take(network)
            self.welcome.pop(fingerprint(secret or ""), None)
            detail = "this needs a token" if secret is None else "this token is not known, or no longer"
            return problem(401, detail, instance=path, headers=CHALLENGE)
        state["caller"] = caller
        key = fingerprint(secret or ""), is_own_machine
        stay = self.stays.get(key) or TokenRecheck(lambda: self.find(secret, is_own_machine))
        state["stay"] = self.stays[key] = stay
        if caller.token_id is None or secret is None:
            return None
        self._welcome(fingerprint(secret))
        self.audit.note_use(caller.token_id)
        wait = self.requests.take(caller.token_id)
        return _later(path, wait, "this token asks too often") if wait else None

    async def _use_link(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on without a caller. Of links that are not there, only so many a minute are looked up.

        They are not counted among failed logins: any page of the web may have a browser try some from here.
        """
        network = network_of(_address(scope))

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 404:
                self.wrong_links.take(network)
            await send(message)

        wait = self.wrong_links.wait_seconds(network)
        refusal = _later(scope["path"], wait, "too many links that are not there were tried from this address")
        await (refusal if wait else self.app)(scope, receive, counting)

    def _noting(self, scope: Scope, send: Send) -> Send:
        """Write down what was done, or was not allowed. Mere looking is not noted, nor is who is told to wait."""

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                if status != 429 and (scope["method"] not in LOOKS or status in (401, 403)):
                    self.audit.note(_entry(scope, message))
            await send(message)

        return noting

    def _welcome(self, print_: str) -> None:
        self.welcome[print_] = None
        self.welcome.move_to_end(print_)
        if len(self.welcome) > MOST_WELCOME:
            self.welcome.popitem(last=False)

    def _is_own_machine(self, scope: Scope) -> bool:
        """By the setting, and by the address that was in fact connected to: they may differ."""
        host, _ = scope.get("server") or ("", 0)
        return self.on_loopback and is_loopback(host) and FORWARDED.isdisjoint(Headers(scope=scope))

    def find(self, secret: str | None, is_own_machine: bool) -> Caller | None:
        """Whoever has this secret, or none and is on this machine."""
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


def _address(scope: Scope) -> str:
    return str((scope.get("client") or ("",))[0])


def _later(path: str, seconds: float, detail: str) -> ASGIApp:
    return problem(429, detail, instance=path, headers={"Retry-After": str(math.ceil(seconds))})


def _entry(scope: Scope, start: Message) -> Entry:
    caller: Caller | None = scope["state"]["caller"]
    route = getattr(scope.get("route"), "path", None) or "(no route)"
    return Entry(
        at=utc_now(),
        actor=caller.name if caller else None,
        token_id=caller.token_id if caller else None,
        action=f"{scope['method']} {route}"[:128],
        target=redact(Headers(raw=start["headers"]).get("location", scope["path"]))[:255],
        status=start["status"],
        address=_address(scope)[:64],
        request_id=scope["state"].get("request_id"),
    )
