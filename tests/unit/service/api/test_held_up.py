"""Whatever a body holds, the event loop goes on meanwhile: /healthz and everybody else are answered."""

import asyncio
import json
import time
from collections.abc import Callable

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.api.app import BODY_LIMIT_BYTES
from service.api.bodies import MOST_FIELDS, BoundedRoute
from tests.support.specs import spec_dict

HELD_SECONDS = 0.1


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """No body gets as far as the database."""
    return sqlite_url


def _many(count: int) -> dict[str, int]:
    return {f"{index:x}": 0 for index in range(count)}


def _schedule(count: int) -> dict[str, object]:
    return {"schedule": {"type": "multistep", "milestones": [0] * count}}


BODIES: dict[str, tuple[str, Callable[[int], object]]] = {
    "zeros": ("experiments", lambda n: spec_dict(train=_schedule(n))),
    "unknown fields": ("experiments", lambda n: spec_dict() | _many(n)),
    "unknown fields within": ("experiments", lambda n: spec_dict(train=_many(n))),
    "wrong tags": ("experiments", lambda n: spec_dict(tags=_many(n))),
    "good tags": ("experiments", lambda n: spec_dict(tags=dict.fromkeys(_many(n), ""))),
    "empty objects": ("experiments", lambda n: spec_dict(export=[{}] * n)),
    "overrides": ("experiments", lambda n: {"template": "digits-cbam", "overrides": _many(n)}),
    "an override": ("experiments", lambda n: {"template": "digits-cbam", "overrides": {"train": _many(n)}}),
    "a deep override": ("experiments", lambda n: {"template": "digits-cbam", "overrides": {".".join("a" * n): 0}}),
    "a preview": ("experiments/preview", lambda n: {"template": "digits-cbam", "overrides": {"train": _many(n)}}),
    "ids": ("bulk/cancel", lambda n: {"ids": ["a"] * n}),
    "no ids": ("bulk/cancel", lambda n: {"ids": [0] * n}),
    "states": ("bulk/delete", lambda n: {"filter": {"state": ["?"] * n}}),
    "unknown fields of a token": ("tokens", _many),
    "unknown fields of a webhook": ("webhooks", lambda n: {"url": "http://x"} | _many(n)),
}


def _content(make: Callable[[int], object], count: int) -> bytes:
    """A body with so many items, or with nearly as many as are let in."""
    while len(content := json.dumps(make(count), separators=(",", ":")).encode()) > BODY_LIMIT_BYTES:
        count = int(count * 0.98 * BODY_LIMIT_BYTES / len(content))
    return content


async def _longest_hold(app: FastAPI, place: str, content: bytes) -> float:
    """How long the request holds whoever else asks; by the process's own time, as other processes are busy too."""
    held = 0.0

    async def tick() -> None:
        nonlocal held
        last = time.process_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.process_time()
            held = max(held, now - last)
            last = now

    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1/v1/") as client:
        ticking = asyncio.create_task(tick())
        answer = await client.post(place, content=content, headers={"Content-Type": "application/json"})
        await asyncio.sleep(0.005)
        ticking.cancel()
    assert answer.status_code == 422, answer.text
    assert len(answer.content) < 20_000
    return held


@pytest.mark.parametrize("count", [BODY_LIMIT_BYTES // 2, MOST_FIELDS - 100])
@pytest.mark.parametrize("kind", BODIES)
def test_no_body_that_is_let_in_holds_up_the_others(http, kind, count):
    place, make = BODIES[kind]
    content = _content(make, count)
    held = [asyncio.run(_longest_hold(http.app, place, content)) for _ in range(3)]
    assert min(held) < HELD_SECONDS, "on a quiet machine none for more than 0.03 s"


def test_of_too_many_fields_nothing_is_looked_at(http):
    answer = http.post("/v1/experiments", json=spec_dict() | _many(MOST_FIELDS))
    assert answer.status_code == 422
    assert answer.json()["detail"] == f"the body has more than {MOST_FIELDS} fields in all; none needs so many"


def test_a_field_that_stands_twice_is_refused_by_name(http):
    content = json.dumps(spec_dict())[:-1] + ', "name": "b"}'
    answer = http.post("/v1/experiments", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["detail"] == "the field 'name' stands twice in one object"


def test_every_route_with_a_body_counts_its_fields(http):
    routes = [route for route in _routes(http.app.router.routes) if isinstance(route, APIRoute) and route.body_field]
    assert len(routes) > 8
    assert [route.path for route in routes if not isinstance(route, BoundedRoute)] == []


def _routes(routes):
    for route in routes:
        yield route
        yield from _routes(getattr(getattr(route, "original_router", None), "routes", ()))
