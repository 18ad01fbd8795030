"""What nobody knows is refused by its name, everywhere: in queries, in specs and other bodies."""

import copy
import json
import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import TypeAdapter
from starlette.routing import BaseRoute, Mount, Route

from cbam_core.pointers import pointer_part
from cbam_core.spec import ExperimentSpec, spec_fields
from service.api.app import create_app
from service.api.query import known_query
from service.settings import Settings
from tests.support.specs import spec_dict

PAGES = {"/", "/console", "/docs", "/docs/oauth2-redirect", "/static-offline-docs"}
"""For a browser, which reads their queries itself."""
IDS = {"experiment_id": "nothere", "webhook_id": "nothere", "token_id": "nothere", "delivery_id": "msg_0"}


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> FastAPI:
    return create_app(Settings(home=tmp_path_factory.mktemp("home"), database_url=""))


@pytest.fixture(scope="module")
def http(app) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def routes_of(routes: list[BaseRoute]) -> Iterator[Route]:
    """Every route with a path, those of included routers too."""
    for route in routes:
        if (router := getattr(route, "original_router", None)) is not None:
            yield from routes_of(router.routes)
        elif isinstance(route, Route | Mount):
            yield route
        else:
            raise AssertionError(f"not looked at: {route}")


def all_calls(app: FastAPI) -> list[tuple[str, Route]]:
    return [
        (method, route)
        for route in routes_of(app.routes)
        if route.path not in PAGES
        for method in sorted(getattr(route, "methods", None) or ())
    ]


def test_every_route_refuses_a_word_that_it_does_not_know(app, http):
    calls = all_calls(app)
    assert len(calls) > 45
    wrong = []
    for method, route in calls:
        place = re.sub(r"{(\w+)(:path)?}", lambda found: IDS.get(found[1], "x"), route.path)
        answer = http.request(method, place, params={"no_such_word": "1"})
        if answer.status_code != 422 or (method != "HEAD" and "no_such_word" not in answer.text):
            wrong.append(f"{method} {route.path}: {answer.status_code} {answer.text[:200]}")
    assert wrong == []


def test_what_a_route_knows_is_what_its_description_names(app):
    """Else a parameter that is documented would be refused, or one that is not, taken."""
    documented = {
        (method.upper(), path): {one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"}
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }
    known = {
        (method, re.sub(":path}", "}", route.path)): set(known_query(route))
        for method, route in all_calls(app)
        if isinstance(route, APIRoute) and route.include_in_schema
    }
    assert known == documented


@pytest.mark.parametrize(
    ("place", "pointer", "detail"),
    [
        ("/v1/experiments/nothere/logs?rnk=1", "rnk", "did you mean rank?"),
        ("/v1/experiments?stat=QUEUED", "stat", "did you mean state?"),
        ("/v1/experiments/nothere/logs?rank=0&rank=1", "rank", "this stands 2 times"),
        ("/v1/experiments?limit=1&limit=2", "limit", "this stands 2 times"),
    ],
)
def test_the_refusal_names_the_word_and_what_may_be_meant(http, place, pointer, detail):
    answer = http.get(place)
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    (item,) = answer.json()["errors"]
    assert item["pointer"] == pointer
    assert detail in item["detail"]


def test_a_list_may_stand_several_times(http):
    assert http.get("/v1/experiments?state=QUEUED&state=RUNNING&tag=a&tag=b&id=a&id=b").status_code == 200
    assert http.get("/v1/experiments/nothere/metrics?name=a&name=b").status_code == 404


def test_a_browser_may_open_the_pages_with_whatever_query(http):
    assert http.get("/docs?x=1").status_code == 200
    assert http.get("/?x=1").status_code == 200


WHOLE = spec_dict(
    name="whole",
    tags={"paper": "cbam"},
    model={"backbone": "cifar_resnet20", "attention": {"type": "cbam"}, "weights": {"source": "/data/weights.pth"}},
    data={
        "dataset": "table",
        "root": "/data",
        "columns": {"image": "image"},
        "val": {"fraction": 0.1},
        "augment": {"rand_augment": {"num_ops": 2}},
    },
    train={
        "optimizer": {"type": "sgd"},
        "schedule": {"type": "cosine"},
        "ema": {"decay": 0.9},
        "seeds": {"init": 1},
    },
    resources={"workers": {"min": 1, "max": 2}},
    checkpoint={"keep_last": 1},
    retry={"max_restarts": 1},
)
KINDS = {("model", "attention"), ("train", "optimizer"), ("train", "schedule")}
JSON = {"Content-Type": "application/json"}


def whole_specs() -> Iterator[dict[str, object]]:
    """Specs that together have every mapping that a spec may have, with each kind of those that have kinds."""
    kinds: dict[tuple[str, ...], set[str]] = {}
    for path in spec_fields():
        if path[-1] == "type":
            kinds.setdefault(tuple(part for part in path[:-1] if not part.startswith("=")), set()).update(
                part.removeprefix("=") for part in path if part.startswith("=")
            )
    assert kinds.keys() == KINDS
    for (part, name), names in kinds.items():
        for kind in sorted(names):
            value = {"type": kind} | ({"milestones": [1]} if kind == "multistep" else {})
            value |= {"lr": 0.1} if kind.startswith("timm:") else {}
            yield {**WHOLE, part: {**WHOLE[part], name: value}}


def mappings(value: object, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        yield at
        for name, inner in value.items():
            yield from mappings(inner, (*at, name))


def test_every_level_of_a_spec_refuses_a_word_that_it_does_not_know(http):
    """A key that is misspelt beside each key that there is, in each kind of part that a spec may have."""
    seen: set[tuple[str, ...]] = set()
    for fields in whole_specs():
        ExperimentSpec.model_validate(fields)
        for path in mappings(fields):
            kind = fields
            for name in path:
                kind = kind[name]
            place = (*path, kind.get("type", "")) if path in KINDS else path
            if path == ("tags",) or place in seen:  # the names of tags are the user's
                continue
            seen.add(place)
            wrong = copy.deepcopy(fields)
            inner = wrong
            for name in path:
                inner = inner[name]
            inner["no_such_key"] = 1
            answer = http.post("/v1/experiments/preview", content=json.dumps(wrong), headers=JSON)
            assert answer.status_code == 422, path
            pointers = [item["pointer"] for item in answer.json()["errors"]]
            assert "".join(f"/{pointer_part(name)}" for name in (*path, "no_such_key")) in pointers
    parts = {tuple(part for part in path[:-1] if not part.startswith("=")) for path in spec_fields()}
    options = ("train", "optimizer", "options")  # checked against timm's own, by name: test_timm_options.py
    assert parts - {options} == {path[:2] if path[:2] in KINDS else path for path in seen}


def test_every_model_of_a_body_forbids_what_it_does_not_know(app):
    """Also those within others, whatever route takes them."""
    checked = set()
    for method, route in all_calls(app):
        if isinstance(route, APIRoute) and route.body_field is not None:
            schema = TypeAdapter(route.body_field.field_info.annotation).json_schema()
            for name, inner in {"": schema, **schema.get("$defs", {})}.items():
                if "properties" in inner:
                    checked.add(name or inner["title"])
                    assert inner.get("additionalProperties") is False, f"{method} {route.path}: {name}"
    assert {"ExperimentSpec", "FromTemplate", "BulkRequest", "PruneRequest", "TokenRequest"} <= checked
