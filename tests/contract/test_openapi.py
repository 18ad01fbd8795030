"""The description of the API: complete, with examples that hold, and frozen: what breaks clients does not slip in."""

import copy
import json
import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator

from service.api.app import create_app
from service.api.openapi_examples import SCHEMAS
from service.settings import Settings
from tests.support.openapi_changes import breaking

FROZEN = Path(__file__).parents[2] / "docs" / "openapi.json"
PROBLEM = "application/problem+json"
OPEN = {"/healthz", "/readyz", "/v1/downloads/{name}"}


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return create_app(Settings(home=tmp_path_factory.mktemp("home"), database_url="")).openapi()


def operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def validator(document, schema):
    return Draft202012Validator({**schema, "components": document["components"]})


def test_the_description_is_the_frozen_one(document):
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))
    assert breaking(frozen, document) == []
    assert document == frozen, "run .venv/bin/python scripts/openapi"


def test_every_operation_has_a_description_a_name_and_every_error(document):
    names = set()
    for where, operation in operations(document):
        assert operation["description"], where
        assert operation["operationId"] not in names, where
        names.add(operation["operationId"])
        codes = {int(code) for code in operation["responses"]}
        wanted = {400}
        if where.split()[1] not in OPEN:
            wanted |= {401, 403, 429, 503}
        if "{" in where:
            wanted |= {404, 422}
        if not where.startswith("GET"):
            wanted |= {408, 413, 415}
        if "requestBody" in operation or operation.get("parameters"):
            wanted |= {422}
        assert codes >= wanted, where
        for code, answer in operation["responses"].items():
            assert "X-Request-ID" in answer["headers"], where
            if code.startswith("4") or (code.startswith("5") and "/readyz" not in where):
                assert answer["content"].keys() == {PROBLEM}, f"{where} {code}"
                assert ("Retry-After" in answer["headers"]) == (code in ("429", "503")), f"{where} {code}"


def test_every_example_holds_against_its_schema(document):
    checked = 0
    for where, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for example in content.get("examples", {}).values():
                errors = list(validator(document, content["schema"]).iter_errors(example["value"]))
                assert not errors, f"{where}: {errors}"
                checked += 1
        for answer in operation["responses"].values():
            for content in answer.get("content", {}).values():
                if "example" in content:
                    assert not list(validator(document, content["schema"]).iter_errors(content["example"])), where
                    checked += 1
    for name, example in SCHEMAS.items():
        errors = list(validator(document, {"$ref": f"#/components/schemas/{name}"}).iter_errors(example))
        assert not errors, f"{name}: {errors}"
    assert checked > 100


def test_every_schema_says_what_it_is(document):
    enums_and_specs = {name for name, schema in document["components"]["schemas"].items() if "enum" in schema}
    for name, schema in document["components"]["schemas"].items():
        assert name in enums_and_specs or schema.get("description"), name


def test_the_page_takes_nothing_from_a_network(tmp_path):
    app = create_app(Settings(home=tmp_path, database_url=""))
    with TestClient(app, base_url="http://127.0.0.1") as http:
        text = http.get("/docs").text
        links = re.findall(r"""(?:src|href)=["']([^"']+)""", text)
        assert links
        assert [link for link in links if link.startswith(("http", "//"))] == []
        for link in links:
            assert http.get(link).status_code == 200, link
        assert http.get("/redoc").status_code == 404, "its page asks a foreign host for a logo"


SMALL = {
    "paths": {
        "/a": {
            "post": {
                "operationId": "post_a",
                "parameters": [{"in": "query", "name": "q", "schema": {"type": "string", "maxLength": 9}}],
                "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/In"}}}},
                "responses": {
                    "200": {
                        "headers": {"ETag": {}},
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Out"}}},
                    },
                    "404": {},
                },
            }
        }
    },
    "components": {
        "schemas": {
            "In": {
                "type": "object",
                "additionalProperties": False,
                "required": ["a"],
                "properties": {
                    "a": {"type": "integer", "minimum": 1},
                    "b": {"enum": ["x", "y"]},
                    "c": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "deep": {"$ref": "#/components/schemas/In"},
                },
            },
            "Out": {
                "type": "object",
                "required": ["id"],
                "properties": {
                    "id": {"type": "string"},
                    "items": {"type": "array", "items": {"$ref": "#/components/schemas/Out"}},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "kind": {"enum": ["x"]},
                },
            },
        }
    },
}
OPERATION = ("paths", "/a", "post")
IN = ("components", "schemas", "In")
OUT = ("components", "schemas", "Out")
GONE = object()


def changed(path, value):
    """SMALL with the value at the path replaced, or taken away."""
    new = copy.deepcopy(SMALL)
    inner = new
    for part in path[:-1]:
        inner = inner[part]
    if value is GONE:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return new


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("paths", "/a"), GONE),
        (OPERATION, GONE),
        ((*OPERATION, "operationId"), "other"),
        ((*OPERATION, "parameters"), []),
        ((*OPERATION, "parameters", 0, "required"), True),
        ((*OPERATION, "parameters", 0, "schema", "maxLength"), 8),
        ((*OPERATION, "parameters", 0, "schema", "pattern"), "a"),
        ((*OPERATION, "requestBody"), GONE),
        ((*OPERATION, "requestBody", "required"), True),
        ((*OPERATION, "responses", "404"), GONE),
        ((*OPERATION, "responses", "200", "headers"), {}),
        ((*OPERATION, "responses", "200", "content"), {"text/plain": {}}),
        ((*IN, "required"), ["a", "b"]),
        ((*IN, "properties", "c"), GONE),
        ((*IN, "properties", "a", "minimum"), 2),
        ((*IN, "properties", "a", "type"), "string"),
        ((*IN, "properties", "b", "enum"), ["x"]),
        ((*IN, "properties", "c", "anyOf"), [{"type": "string"}]),
        ((*OUT, "properties", "note"), GONE),
        ((*OUT, "properties", "id", "type"), "integer"),
        ((*OUT, "required"), []),
        ((*OUT, "properties", "kind"), {}),
        ((*OUT, "properties", "note", "anyOf"), [{"type": "string"}, {"type": "null"}, {"type": "integer"}]),
    ],
)
def test_what_breaks_clients_is_noticed(path, value):
    assert breaking(SMALL, changed(path, value)), path


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("paths", "/b"), {"get": {"operationId": "get_b", "responses": {}}}),
        ((*OPERATION, "responses", "409"), {}),
        ((*OPERATION, "parameters", 0, "schema", "maxLength"), 10),
        ((*OPERATION, "description"), "more words"),
        ((*IN, "properties", "d"), {"type": "integer"}),
        ((*IN, "required"), []),
        ((*IN, "properties", "a", "minimum"), 0),
        ((*IN, "properties", "b", "enum"), ["x", "y", "z"]),
        ((*IN, "additionalProperties"), True),
        ((*OUT, "properties", "more"), {"type": "integer"}),
        ((*OUT, "required"), ["id", "note"]),
        ((*OUT, "properties", "note", "anyOf"), [{"type": "string"}]),
    ],
)
def test_what_breaks_nobody_is_let_through(path, value):
    assert breaking(SMALL, changed(path, value)) == [], path


def test_a_document_does_not_break_itself(document):
    assert breaking(document, document) == []


def unbounded(schema, document, at, seen):
    """What a body may hold without an end: lists, whole numbers, texts and free objects."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        if name not in seen:
            yield from unbounded(document["components"]["schemas"][name], document, name, {*seen, name})
        return
    kind = schema.get("type")
    fixed = {"enum", "const", "format", "pattern", "exclusiveMaximum"} & schema.keys()
    ends = {"array": "maxItems", "integer": "maximum", "string": "maxLength", "object": "maxProperties"}
    if kind in ends and ends[kind] not in schema and not fixed and "properties" not in schema:
        yield f"{at}: {kind}"
    inner = [(at, part) for key in ("anyOf", "oneOf", "allOf", "prefixItems") for part in schema.get(key, ())]
    inner += [(f"{at}.{name}", part) for name, part in schema.get("properties", {}).items()]
    inner += [(f"{at}[]", part) for part in (schema.get("items"), schema.get("additionalProperties")) if part]
    for place, part in inner:
        if isinstance(part, dict):
            yield from unbounded(part, document, place, seen)


def test_nothing_that_is_sent_may_be_without_an_end(document):
    """A hundred specs that named one export 140,000 times cost the dispatcher a gigabyte."""
    found = set()
    for where, operation in operations(document):
        schemas = [content["schema"] for content in operation.get("requestBody", {}).get("content", {}).values()]
        for schema in (*schemas, *(parameter["schema"] for parameter in operation.get("parameters", ()))):
            found |= set(unbounded(schema, document, where, set()))
    assert found == set()
