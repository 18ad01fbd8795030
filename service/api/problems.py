"""One table from domain errors to HTTP, and every error as RFC 9457 `application/problem+json`. Never a traceback."""

import json
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from cbam_core.errors import CbamError, SpecError
from cbam_core.pointers import MOST_ERROR_ITEMS, error_items
from cbam_core.spec import spec_fields
from cbam_core.suggestions import Path as FieldPath
from cbam_core.suggestions import fields_of
from service.api.openapi_examples import PROBLEMS
from service.api.query import known_query
from service.database.outages import AWAY, Unusable
from service.errors import (
    DiskQuotaExceeded,
    ExperimentDeleted,
    ExperimentNotFound,
    FilesPruned,
    Forbidden,
    IdempotencyConflict,
    IllegalAction,
    InvalidFields,
    NoSuchFile,
    NoSuchLink,
    PreviewUnavailable,
    StorageUnavailable,
    StudyDeleted,
    StudyNotFound,
    TemplateNotFound,
    TokenNotFound,
    TooManyOwnStreams,
    TooManyStreams,
    TooManyTests,
    TooManyWebhooks,
    TrackingUnfinished,
    VersionConflict,
    WebhookNotFound,
)
from service.redaction import redact
from service.schemas.problems import ErrorItem, Problem
from workers import tracing

log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"
RETRY_AFTER_SECONDS = "2"
STATUS_OF: dict[type[CbamError], int] = {
    Forbidden: 403,
    ExperimentNotFound: 404,
    StudyNotFound: 404,
    NoSuchFile: 404,
    NoSuchLink: 404,
    TemplateNotFound: 404,
    TokenNotFound: 404,
    WebhookNotFound: 404,
    TooManyTests: 409,
    TooManyWebhooks: 409,
    IllegalAction: 409,
    DiskQuotaExceeded: 409,
    TrackingUnfinished: 409,
    ExperimentDeleted: 410,
    StudyDeleted: 410,
    FilesPruned: 410,
    VersionConflict: 412,
    IdempotencyConflict: 422,
    InvalidFields: 422,
    SpecError: 422,
    PreviewUnavailable: 503,
    StorageUnavailable: 503,
    TooManyOwnStreams: 429,
    TooManyStreams: 503,
}


def documented(*codes: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that may answer with these problems."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {code: {"description": HTTPStatus(code).phrase, "content": {PROBLEM_JSON: schema}} for code in codes}


def example_of(code: int, path: str) -> dict[str, Any]:
    """A problem as the description of the API shows it."""
    return {"type": "about:blank", "title": HTTPStatus(code).phrase, "status": code, "instance": path} | PROBLEMS[code]


def with_headers(code: int, headers: Mapping[str, str]) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route whose answer carries these headers, each with its meaning."""
    schema = {"type": "string"}
    return {code: {"headers": {name: {"description": text, "schema": schema} for name, text in headers.items()}}}


def problem(
    status: int,
    detail: str,
    *,
    instance: str | None = None,
    errors: Sequence[ErrorItem] = (),
    legal: Sequence[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """The answer that tells what went wrong."""
    body = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=instance,
        errors=list(errors),
        legal=None if legal is None else list(legal),
    )
    return _answer(body, headers)


def problem_of(error: CbamError, *, instance: str) -> Problem:
    """A domain error as a problem; its status is 500 where the table does not know it."""
    status = next((code for kind, code in STATUS_OF.items() if isinstance(error, kind)), 500)
    return Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=str(error),
        instance=instance,
        errors=[ErrorItem(pointer=pointer, detail=detail) for pointer, detail in getattr(error, "items", ())],
        legal=list(error.legal) if isinstance(error, IllegalAction) else None,
    )


def _answer(body: Problem, headers: Mapping[str, str] | None) -> JSONResponse:
    content = body.model_dump(mode="json", exclude_none=True)
    return _ProblemResponse(content, status_code=body.status, headers=headers)


class _ProblemResponse(JSONResponse):
    """It may tell the user's own words, in which there may be half a character: that cannot be sent."""

    media_type = PROBLEM_JSON

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def validation_items(
    errors: Sequence[Mapping[str, Any]], body: object, *, route: APIRoute | None = None
) -> list[ErrorItem]:
    """The first of pydantic's errors as problems show them: pointers into the body, or the names of parameters."""
    items = []
    for error in errors[:MOST_ERROR_ITEMS]:
        place, *rest = error["loc"] or ("body",)
        if rest[:1] == ["from_spec"]:  # the tag of a body that is a whole spec
            rest, fields = rest[1:], spec_fields()
        else:
            fields = _fields_of(route, place)
        ((pointer, detail),) = error_items([{**error, "loc": rest}], body if place == "body" else None, fields=fields)
        if place == "path" and error["type"] == "string_pattern_mismatch":
            detail = "an id is lower-case letters and digits; a name is looked for with ?q= in the list"
        items.append(ErrorItem(pointer=pointer if place == "body" else str(error["loc"][1]), detail=detail))
    return items


def _fields_of(route: APIRoute | None, place: str) -> tuple[FieldPath, ...]:
    """What a route knows in its query, and in its body where that is a model: what may be meant by something else."""
    if place == "query":
        return tuple((name,) for name in known_query(route))
    if route is None or place != "body" or route.body_field is None:
        return ()
    model = route.body_field.field_info.annotation
    return _fields(model) if isinstance(model, type) and issubclass(model, BaseModel) else ()


@cache
def _fields(model: type[BaseModel]) -> tuple[FieldPath, ...]:
    return tuple(fields_of(model.model_json_schema()))


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(CbamError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(Exception, _unexpected)


async def _domain(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, CbamError)
    body = problem_of(error, instance=request.url.path)
    if body.status == 500:
        return await _unexpected(request, error)
    return _answer(body, {"Retry-After": RETRY_AFTER_SECONDS} if body.status in (429, 503) else None)


async def _validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    broken = next((item for item in errors if item["type"] == "json_invalid"), None)
    if broken is not None:
        where = broken["loc"][-1]
        detail = f"the body is not valid JSON: {broken['ctx']['error']} at character {where}"
        return problem(400, detail, instance=request.url.path)
    route = request.scope.get("route")
    items = validation_items(errors, error.body, route=route if isinstance(route, APIRoute) else None)
    noun = "field" if len(errors) == 1 else "fields"
    first = f"; these are the first {len(items)}" if len(errors) > len(items) else ""
    return problem(422, f"{len(errors)} {noun} cannot be used{first}", instance=request.url.path, errors=items)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return problem(error.status_code, str(error.detail), instance=request.url.path, headers=error.headers)


async def _database(request: Request, error: Exception) -> JSONResponse:
    return no_database(error, instance=request.url.path)


def no_database(error: Exception, *, instance: str) -> JSONResponse:
    """The database cannot be used now: come again. What it says itself is for the log alone."""
    words = error.words if isinstance(error, Unusable) else AWAY
    log.error("%s: %s", words, error)
    return problem(503, words, instance=instance, headers={"Retry-After": RETRY_AFTER_SECONDS})


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    request_id = getattr(request.state, "request_id", None)
    log.error("%s %s failed", request.method, request.url.path, exc_info=error, extra={"request_id": request_id})
    tracing.exception(error, redact=redact)
    detail = f"an unexpected error; it is in the server's log under request id {request_id}"
    headers = {"X-Request-ID": request_id} if request_id else None
    return problem(500, detail, instance=request.url.path, headers=headers)
