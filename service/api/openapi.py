"""The API's description of itself: what the routes say, and beside it what is true of all of them.

A route documents what is its own (404, 409, 412 …). What the parts in front of every route may answer is added here by
rule, so that no route can forget it; and examples, and names for the operations that do not change with our functions.
"""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from service.api.middleware.authentication import LINKS, OPEN_PATHS, READY_PATH
from service.api.openapi_examples import BODIES, PARAMETERS, SCHEMAS
from service.api.problems import PROBLEM_JSON, example_of
from service.api.query import only_known_query


def _header(name: str, meaning: str, kind: str = "string") -> dict[str, Any]:
    return {name: {"description": meaning, "schema": {"type": kind}}}


METHODS = ("get", "put", "post", "patch", "delete")
ALWAYS = (400, 503)  # the Host is another; the database is away
WITH_BODY = (408, 413, 415)  # also where nobody asked for a body
WITH_TOKEN = (401, 403, 429)
ANSWERS_WITHOUT_DATABASE = frozenset({"/healthz"})
RETRY_AFTER = _header("Retry-After", "seconds to wait", "integer")
REQUEST_ID = _header("X-Request-ID", "the request's own, where it had a sane one, or a new one")
CHALLENGE = _header("WWW-Authenticate", "how to name oneself")
PLACE = "/openapi.json"


def operation_id(route: APIRoute) -> str:
    """The operation's name: its method and path, as `post_experiments_cancel`; a parameter in between says nothing."""
    method = min(route.methods or {"get"}).lower()
    words = [word for word in route.path.removeprefix("/v1").strip("/").split("/") if word]
    named = [word for word in words if not word.startswith("{")]
    one = "_one" if words and words[-1].startswith("{") else ""
    return re.sub(r"\W", "_", "_".join((method, *named))) + one


def install(app: FastAPI) -> None:
    """Have the app describe itself like this, in the place of FastAPI's route, which encodes it for every request."""
    app.openapi = partial(_document, app, app.openapi)  # type: ignore[method-assign]
    app.router.routes[:] = [
        Route(PLACE, _Encoded(app).answer, include_in_schema=False) if getattr(route, "path", None) == PLACE else route
        for route in app.router.routes
    ]


class _Encoded:
    """The document as bytes, made once, off the event loop: it takes a second, and anybody may ask."""

    def __init__(self, app: FastAPI) -> None:
        self._app, self._lock = app, threading.Lock()
        self._body, self._etag = b"", ""

    async def answer(self, request: Request) -> Response:
        """The bytes; 304 for whoever has them."""
        await only_known_query(request)
        if not self._body:
            await run_in_threadpool(self._encode)
        known = (word.strip().removeprefix("W/") for word in request.headers.get("If-None-Match", "").split(","))
        if self._etag in known:
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": self._etag})
        return Response(self._body, media_type="application/json", headers={"ETag": self._etag})

    def _encode(self) -> None:
        with self._lock:
            if not self._body:
                body = json.dumps(self._app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()
                self._etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
                self._body = body


def _document(app: FastAPI, plain: Any) -> dict[str, Any]:
    if app.openapi_schema is None:
        app.openapi_schema = complete(plain())
    return app.openapi_schema


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """The document with everything that is true of all operations, and with examples."""
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                _add_problems(path, method, methods[method])
                _add_examples(path, methods[method])
    for schema in document["components"]["schemas"].values():
        _move_defaults(schema)
    for name, example in SCHEMAS.items():
        document["components"]["schemas"][name]["examples"] = [example]
    return document


def _add_problems(path: str, method: str, operation: dict[str, Any]) -> None:
    """What the parts in front of the route may answer in its place."""
    answers = operation["responses"]
    is_open = path in OPEN_PATHS or path == READY_PATH or path.startswith(LINKS)
    codes = [*ALWAYS, *(() if is_open else WITH_TOKEN), *(() if method == "get" else WITH_BODY)]
    for code in codes:
        if not (code == HTTPStatus.SERVICE_UNAVAILABLE and path in ANSWERS_WITHOUT_DATABASE):
            answers.setdefault(str(code), _problem(code))
    operation["responses"] = dict(sorted(answers.items()))


def _add_examples(path: str, operation: dict[str, Any]) -> None:
    """Headers, meanings and examples of all answers; examples of parameters and bodies."""
    for code, answer in operation["responses"].items():
        answer["headers"] = answer.get("headers", {}) | REQUEST_ID | _headers_of(int(code))
        content = answer.get("content", {})
        if PROBLEM_JSON in content:
            answer["description"] = _problem(int(code))["description"]
            content[PROBLEM_JSON]["example"] = example_of(int(code), path)
    for parameter in operation.get("parameters", []):
        if parameter["name"] in PARAMETERS:
            parameter["example"] = PARAMETERS[parameter["name"]]
    if examples := BODIES.get(operation["operationId"]):
        operation["requestBody"]["content"]["application/json"]["examples"] = examples


def _move_defaults(schema: dict[str, Any]) -> None:
    """A default that is an object stands beside a reference; public generators of clients refuse such a schema."""
    for field in schema.get("properties", {}).values():
        if isinstance(field.get("default"), dict) and ("$ref" in field or "oneOf" in field):
            field["x-default"] = field.pop("default")


def _problem(code: int) -> dict[str, Any]:
    return {
        "description": MEANINGS.get(code, HTTPStatus(code).phrase),
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _headers_of(code: int) -> Mapping[str, Any]:
    if code in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE):
        return RETRY_AFTER
    return CHALLENGE if code == HTTPStatus.UNAUTHORIZED else {}


MEANINGS = {
    400: "The body is no JSON, or the Host is not this server",
    401: "This needs a token, or the token is not known any more",
    403: "The token's role, or another owner, does not allow it; or a browser sends it from another site's page",
    404: "There is no such thing",
    408: "The body did not come in time",
    409: "Its state does not allow this; `legal` names what it does",
    412: "It has changed since the version that If-Match names",
    413: "The body is over 256 KiB",
    416: "The file has none of these bytes; Content-Range tells its size",
    415: "A body must be application/json",
    422: "Something cannot be used; `errors` points to it",
    429: "Too many requests; come back after Retry-After seconds",
    503: "It cannot be answered now, as the database is away or the server full; come back after Retry-After seconds",
}
