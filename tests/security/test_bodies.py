"""Bodies that no honest client sends."""

import json
import time

import pytest

from cbam_core.errors import SpecError
from cbam_core.spec import read_spec
from tests.support.specs import spec_dict

JSON = {"Content-Type": "application/json"}
GOOD = json.dumps(spec_dict())


def with_value(field: str, value: str) -> bytes:
    """The good spec with a top-level field as this JSON text."""
    fields = {**spec_dict(), field: "@@"}
    return json.dumps(fields).replace('"@@"', value).encode()


BODIES = {
    "nothing": b"",
    "null": b"null",
    "a number": b"7",
    "a list": b"[]",
    "half": GOOD.encode()[:-10],
    "twice": (GOOD + GOOD).encode(),
    "deep lists": b"[" * 200_000 + b"]" * 200_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep within": with_value("tags", '{"a":' * 5_000 + "1" + "}" * 5_000),
    "deep name": with_value("name", "[" * 900 + "]" * 900),
    "NaN": with_value("priority", "NaN"),
    "infinity": with_value("priority", "-Infinity"),
    "1e999": with_value("priority", "1e999"),
    "many digits": with_value("priority", "9" * 4000),
    "too many digits": with_value("priority", "9" * 100_000),
    "tiny": with_value("deadline_minutes", "1e-400"),
    "huge exponent": with_value("deadline_minutes", "1e99999999999999999999"),
    "64 bits": with_value("priority", str(2**63)),
    "minus": with_value("priority", str(-(2**63) - 1)),
    "NUL": with_value("name", '"a\\u0000b"'),
    "half a surrogate": with_value("name", '"\\ud800"'),
    "right to left": with_value("name", '"\\u202e\\u0000"'),
    "long name": with_value("name", '"' + "n" * 500_000 + '"'),
    "many tags": with_value("tags", json.dumps({str(i): "x" for i in range(50_000)})),
    "bad UTF-8": b'{"name": "\xff\xfe"}',
    "BOM": b"\xef\xbb\xbf[]",
    "prototype": with_value("__proto__", '{"admin": true}'),
    "python": with_value("__class__", '"os.system"'),
    "an owner": with_value("owner", '"root"'),
    "path": with_value("project", '"../../../etc/passwd\\u0000"'),
    "a data root": json.dumps(spec_dict(data={"dataset": "cifar10", "root": "/etc/../root"})).encode(),
    "a file as backbone": json.dumps(spec_dict(model={"backbone": "timm:file:///etc/passwd"})).encode(),
    "a url as backbone": json.dumps(spec_dict(model={"backbone": "timm:hf-hub:evil/model"})).encode(),
    "milestones": json.dumps(spec_dict(train={"schedule": {"type": "multistep", "milestones": [0] * 60_000}})).encode(),
    "exports": json.dumps(spec_dict(export=["onnx"] * 20_000)).encode(),
    "unknown fields": json.dumps(spec_dict() | {f"epoch{index}": 0 for index in range(14_000)}).encode(),
    "long unknown field": json.dumps(spec_dict() | {"x" * 250_000: 0}).encode(),
    "deep path": json.dumps({"template": "digits-cbam", "overrides": {".".join("a" * 1_000): 1}}).encode(),
    "deep change": b'{"template": "digits-cbam", "overrides": ' + b'{"a":' * 800 + b"1" + b"}" * 801,
    "many changes": json.dumps({"template": "digits-cbam", "overrides": {f"a{i}": 1 for i in range(20_000)}}).encode(),
    "workers": json.dumps(spec_dict(resources={"workers": 10**12})).encode(),
}


@pytest.fixture(scope="module")
def mallory(target):
    with target.client("mallory") as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/experiments", "/v1/experiments/preview", "/v1/webhooks"])
@pytest.mark.parametrize("name", BODIES)
def test_it_is_refused_with_a_problem_and_nothing_is_stored(target, mallory, path, name):
    before = len(mallory.get("/v1/experiments?limit=200").json()["items"])
    began = time.monotonic()
    answer = mallory.post(path, content=BODIES[name], headers=JSON)
    assert answer.status_code in (400, 413, 422), answer.text[:300]
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 64 * 1024
    assert time.monotonic() - began < 10.0, "0.2 s on a quiet machine"
    assert len(mallory.get("/v1/experiments?limit=200").json()["items"]) == before


@pytest.mark.parametrize(
    "content",
    [
        with_value("deadline_minutes", "0." + "9" * 100_000),
        GOOD.encode("utf-16"),
        GOOD.encode("utf-32"),
        with_value("tags", '{"note": "\\u00ad \\ud83d\\udca9 Ω"}'),
        b" " * 200_000 + GOOD.encode(),
    ],
    ids=["digits", "UTF-16", "UTF-32", "unicode", "blanks"],
)
def test_what_is_odd_but_sound_is_taken_and_shown_as_it_was_sent(mallory, content):
    made = mallory.post("/v1/experiments", content=content, headers=JSON)
    assert made.status_code == 201, made.text
    shown, sent = mallory.get(made.headers["Location"]).json(), json.loads(content)
    assert (shown["name"], shown["tags"]) == (sent["name"], sent.get("tags", {}))


def test_a_field_that_stands_twice_is_refused_by_name(mallory):
    twice = GOOD[:-1] + ', "name": "the last one stands"}'
    refused = mallory.post("/v1/experiments", content=twice.encode(), headers=JSON)
    assert refused.status_code == 422
    assert refused.json()["detail"] == "the field 'name' stands twice in one object"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Encoding": "gzip"},
        {"Idempotency-Key": "k" * 5000},
        {"Idempotency-Key": "a\tb"},
        {"Last-Event-ID": "9" * 400},
        {"X-Request-ID": "x" * 5000},
        {"Expect": "100-continue"},
        {"Content-Type": "application/json; charset=utf-7"},
    ],
)
def test_headers_that_lie_do_no_harm(mallory, headers):
    answer = mallory.post("/v1/experiments", content=b"{}", headers=JSON | headers)
    assert answer.status_code in (400, 415, 422)


@pytest.mark.parametrize(
    "query",
    [
        "limit=" + "9" * 5000,
        "limit=1e3",
        "limit=-1",
        "cursor=" + "A" * 3000,
        "cursor=%00%ff",
        "q=" + "%25" * 40,
        "q=%27%3B%20DROP%20TABLE%20experiments%3B--",
        "state=QUEUED" + "&state=QUEUED" * 1000,
        "project=%F0%9F%92%A9%E2%80%AE",
        "=&&&=&" * 500,
    ],
)
def test_queries_that_no_honest_client_sends(mallory, query):
    answer = mallory.get(f"/v1/experiments?{query}")
    assert answer.status_code in (200, 400, 422)


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    "text",
    [
        LAUGHS + "name: *a11\n",
        LAUGHS + "tags: *a11\n",
        LAUGHS + "tags: {a: *a11}\n",
        LAUGHS + "model: {backbone: *a11, attention: *a11}\n",
        "a: &a {b: *a}\nname: *a\n",
        "&a [*a]",
        "name: !!python/object/apply:os.system ['touch /tmp/owned']\n",
        "name: !!python/name:os.system\n",
        "? {a: b}\n: c\n",
        "[" * 3000,
        "{" * 3000,
        "- " * 3000,
        "name: " + "9" * 5000 + "\n",
        "name: 2001-99-99\n",
        "name: 0x" + "f" * 5000 + "\n",
        "priority: .nan\n",
        "\x00",
        "name: \ud83d".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
        "%YAML 9.9\n---\na: b\n",
        "<<: [1]\n",
        "<<: *nobody\n",
    ],
    ids=range(21),
)
def test_a_spec_file_that_is_a_bomb_is_one_clear_error(tmp_path, text):
    path = tmp_path / "bomb.yaml"
    path.write_text(text, encoding="utf-8")
    began = time.monotonic()
    with pytest.raises(SpecError):
        read_spec(path)
    assert time.monotonic() - began < 20.0
