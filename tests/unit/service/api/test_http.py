"""The API as a client meets it: what is accepted, and how everything else is refused."""

import json
from pathlib import Path

import pytest

from service.dispatcher.store import AttemptEnd
from service.domain.filters import Filter
from service.domain.states import Move, State
from service.experiments import actions
from tests.support.specs import spec, spec_dict

PROBLEM = "application/problem+json"


def with_model(**model):
    return spec_dict(model={"backbone": "cifar_resnet20"} | model)


def test_a_spec_is_accepted_and_found_again(http):
    answer = http.post("/v1/experiments", json=spec_dict(tags={"paper": "cbam"}))
    assert answer.status_code == 201
    shown = http.get(answer.headers["Location"])
    assert shown.status_code == 200
    body = shown.json()
    assert (body["state"], body["tags"], body["attempt"]) == ("QUEUED", {"paper": "cbam"}, 0)
    assert body["spec"]["train"]["epochs"] == 1
    assert body["actions"] == ["cancel", "pause"]


@pytest.mark.parametrize(
    ("body", "pointer", "word"),
    [
        (spec_dict(colour="red"), "/colour", "no such field"),
        (with_model(attention={"type": "cbam", "kernel_size": 4}), "/model/attention/kernel_size", "odd"),
        (
            with_model(attention={"type": "cbam", "reduction": 0}),
            "/model/attention/reduction",
            "greater than or equal to 1",
        ),
        (with_model(attention={"type": "magic"}), "/model/attention", "magic"),
        (with_model(attention={"type": "se", "kernel_size": 7}), "/model/attention/kernel_size", "no such field"),
        (spec_dict(resources={"workers": 0}), "/resources/workers", "greater than"),
        (spec_dict(resources={"workers": 3}), "", "must divide by"),
        (spec_dict(model={"backbone": "resnet19"}), "/model/backbone", "resnet18"),
        (spec_dict(model={}), "/model/backbone", "required"),
        (spec_dict(train={"epochs": "3"}), "/train/epochs", "integer"),
        (spec_dict(train={"epochs": True}), "/train/epochs", "integer"),
        (spec_dict(train={"epochs": 3.5}), "/train/epochs", "integer"),
        (spec_dict(train={"optimizer": {"type": "sgd", "lr": 1e999}}), "/train/optimizer/lr", "finite"),
        (spec_dict(train={"optimizer": {"type": "sgd", "lr": -1}}), "/train/optimizer/lr", "greater than 0"),
        (spec_dict(data={"dataset": "cifar10", "root": "/etc"}), "/data/root", "cbam up --restart --data-root /etc"),
        (spec_dict(data={"dataset": "cifar10", "root": "/etc", "download": True}), "/data/download", "CBAM_ALLOW_"),
        (spec_dict(data={"dataset": "cifar10", "root": "data"}), "/data/root", "absolute"),
        (spec_dict(data={"dataset": "cifar10", "root": "/a\0b"}), "/data/root", "absolute"),
        (spec_dict(tags={"a/b~c": [1]}), "/tags/a~1b~0c", "string"),
        (spec_dict(name="\ud800"), "/name", "string"),
        ([], "", "mapping of fields"),
    ],
)
def test_what_cannot_be_used_is_refused_at_its_place_and_nothing_is_stored(http, body, pointer, word):
    content = json.dumps(body)
    answer = http.post("/v1/experiments", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem["status"] == 422
    assert problem["instance"] == "/v1/experiments"
    details = {item["pointer"]: item["detail"] for item in problem["errors"]}
    assert word in details.get(pointer, ""), problem
    assert http.app.state.store.page(Filter())[0] == []


def test_a_path_that_climbs_out_of_a_data_root_is_refused(http, settings):
    allowed = settings.data_roots[0]
    inside = spec_dict(data={"dataset": "cifar10", "root": str(allowed / "cifar")})
    assert http.post("/v1/experiments", json=inside).status_code == 201
    climbing = spec_dict(data={"dataset": "cifar10", "root": f"{allowed}/../../etc"})
    assert http.post("/v1/experiments", json=climbing).status_code == 422
    allowed.mkdir(parents=True)
    (allowed / "link").symlink_to("/etc")
    linked = spec_dict(data={"dataset": "cifar10", "root": str(allowed / "link")})
    assert http.post("/v1/experiments", json=linked).status_code == 422


@pytest.mark.parametrize(
    ("dataset", "link"),
    [
        ("imagefolder", "train"),
        ("imagefolder", "val/ants"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python/train"),
        ("fashion_mnist", "FashionMNIST/raw"),
        ("fashion_mnist", "train-labels-idx1-ubyte.gz"),
    ],
)
def test_a_link_below_the_root_that_leads_out_is_refused_before_anything_is_stored(
    http, settings, tmp_path, dataset, link
):
    root = settings.data_roots[0] / "mine"
    (root / link).parent.mkdir(parents=True)
    classes = [root / "train"] * (link != "train") + [settings.data_roots[0] / "shared", tmp_path / "private"]
    for image in (folder / name / "1.png" for folder in classes for name in ("cats", "dogs")):
        image.parent.mkdir(parents=True)
        image.touch()
    spec = spec_dict(data={"dataset": dataset, "root": str(root)})
    (root / link).symlink_to(settings.data_roots[0] / "shared")
    original = http.post("/v1/experiments", json=spec)
    assert original.status_code == 201, "a link that stays below the data roots"
    (root / "of no dataset").symlink_to(tmp_path / "private")
    assert http.post("/v1/experiments", json=spec).status_code == 201
    (root / link).unlink()
    (root / link).symlink_to(tmp_path / "private")
    clone = f"/v1/experiments/{original.json()['id']}/clone"
    for path, body in (("/v1/experiments", spec), ("/v1/experiments/preview", spec), (clone, {})):
        answer = http.post(path, json=body)
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/data/root"
        assert f"{root / link} is a link that leads out of the data roots" in error["detail"]


@pytest.mark.parametrize("content", ["{", '{"name": }', "", "{'name': 1}", "[" * 100_000])
def test_broken_json_is_a_400(http, content):
    answer = http.post("/v1/experiments", content=content, headers={"content-type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.status_code == 400 or content == ""
    assert answer.headers["content-type"] == PROBLEM


def test_a_body_over_its_limit_is_a_413(http):
    for body in (b"x" * (1024 * 1024 + 1), json.dumps(spec_dict(name="n" * 2**20)).encode()):
        answer = http.post("/v1/experiments", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)
    assert http.app.state.store.page(Filter())[0] == []


def test_a_body_without_length_is_cut_there_too(http):
    parts = (b"x" * 65536 for _ in range(40))
    answer = http.post("/v1/experiments", content=parts, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["content-type"]) == (413, PROBLEM)


def test_only_json_is_taken_and_only_for_this_host(http):
    form = http.post("/v1/experiments", data={"name": "x"})
    assert (form.status_code, form.headers["content-type"]) == (415, PROBLEM)
    rebound = http.get("/v1/experiments", headers={"host": "evil.example"})
    assert (rebound.status_code, rebound.headers["content-type"]) == (400, PROBLEM)
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert http.get("/healthz", headers={"host": host}).status_code == 200


def test_what_is_not_there_is_a_404_problem(http):
    for path in ("/v1/experiments/nothere", "/v1/experiments/nothere/logs/stream", "/nowhere"):
        answer = http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, PROBLEM)
    assert http.delete("/v1/experiments").status_code == 405


def test_the_same_key_gives_the_same_experiment(http):
    key = {"Idempotency-Key": "once"}
    first = http.post("/v1/experiments", json=spec_dict(), headers=key)
    again = http.post("/v1/experiments", json=spec_dict(), headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json()["id"] == again.json()["id"]
    other = http.post("/v1/experiments", json=spec_dict(name="other"), headers=key)
    assert (other.status_code, other.headers["content-type"]) == (422, PROBLEM)


def test_the_same_key_gives_the_same_experiment_whatever_has_become_of_its_data(http, settings):
    root, key = settings.data_roots[0] / "mine", {"Idempotency-Key": "once"}
    for name in ("cats", "dogs"):
        (root / name).mkdir(parents=True)
        (root / name / "1.png").touch()
    body = spec_dict(data={"dataset": "imagefolder", "root": str(root)})
    first = http.post("/v1/experiments", json=body, headers=key)
    assert first.status_code == 201, first.text
    copy = http.post(f"{first.headers['Location']}/clone", json={}, headers={"Idempotency-Key": "copy"})
    root.rename(root.with_name("elsewhere"))
    assert http.post("/v1/experiments", json=body).status_code == 422
    again = http.post("/v1/experiments", json=body, headers=key)
    assert (again.status_code, again.json()["id"]) == (201, first.json()["id"])
    again = http.post(f"{first.headers['Location']}/clone", json={}, headers={"Idempotency-Key": "copy"})
    assert (again.status_code, again.json()["id"]) == (201, copy.json()["id"])


def test_a_body_has_the_hash_that_it_had_before_fields_were_added():
    """A client may repeat a submission over an upgrade."""
    body = spec(train={"epochs": 1, "ema": {"decay": 0.9}}).model_dump(mode="json")
    before = Path(__file__).with_name("first_body.json").read_text(encoding="utf-8")
    assert actions.as_ever(body) == json.loads(before), "a field that is new belongs into ADDED"
    told = spec(train={"epochs": 1}, data={"dataset": "digits", "val": "folder"}).model_dump(mode="json")
    assert actions.as_ever(told)["data"]["val"] == "folder"


def test_a_key_whose_experiment_is_deleted_is_gone_for_a_submission_and_for_a_copy(http, leader):
    key, original = {"Idempotency-Key": "once"}, http.post("/v1/experiments", json=spec_dict()).json()["id"]
    for path, body in (("/v1/experiments", spec_dict()), (f"/v1/experiments/{original}/clone", {})):
        made = http.post(path, json=body, headers=key).headers["Location"]
        http.post(f"{made}/cancel")
        (row,) = leader.unsettled()
        leader.apply(row, Move(State.CANCELLED))
        assert http.delete(made).status_code == 204
        again = http.post(path, json=body, headers=key)
        assert (again.status_code, again.headers["content-type"]) == (410, PROBLEM)
        assert "has been deleted" in again.json()["detail"]
        assert [one["id"] for one in http.get("/v1/experiments").json()["items"]] == [original]
        key = {"Idempotency-Key": "twice"}


def test_a_cancel_is_accepted_twice(http):
    path = http.post("/v1/experiments", json=spec_dict()).headers["Location"]
    assert http.post(f"{path}/cancel").json()["desired"] == "cancel"
    assert http.post(f"{path}/cancel").status_code == 202
    assert http.post("/v1/experiments/nothere/cancel").status_code == 404


def test_what_a_state_does_not_allow_is_a_409_that_names_what_it_does(http, leader):
    path = http.post("/v1/experiments", json=spec_dict()).headers["Location"]
    leader.claim(leader.queue()[0], 1)
    answer = http.post(f"{path}/pause")
    assert (answer.status_code, answer.headers["content-type"]) == (409, PROBLEM)
    assert answer.json()["legal"] == ["cancel"]
    ((row, _),) = leader.live()
    leader.apply(row, Move(State.RUNNING))
    ((row, _),) = leader.live()
    leader.apply(row, Move(State.SUCCEEDED), AttemptEnd())
    for action in ("cancel", "pause", "resume"):
        assert http.post(f"{path}/{action}").status_code == 409
    assert http.get(path).json()["desired"] == "run"


def test_a_list_is_paged_and_narrowed(http):
    for index in range(5):
        http.post("/v1/experiments", json=spec_dict(name=f"n{index}", project="a" if index % 2 else "b"))
    first = http.get("/v1/experiments?limit=3").json()
    rest = http.get("/v1/experiments", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [item["name"] for item in first["items"] + rest["items"]] == ["n4", "n3", "n2", "n1", "n0"]
    assert rest["next_cursor"] is None
    assert len(http.get("/v1/experiments?project=a").json()["items"]) == 2
    assert len(http.get("/v1/experiments?q=n3").json()["items"]) == 1
    assert len(http.get("/v1/experiments?state=QUEUED&state=RUNNING").json()["items"]) == 5
    for bad in ("limit=0", "limit=201", "cursor=abc", "cursor=W10=", "state=LOST", "cursor=%00"):
        answer = http.get(f"/v1/experiments?{bad}")
        assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM), bad


def test_events_and_attempts_are_shown(http):
    path = http.post("/v1/experiments", json=spec_dict()).headers["Location"]
    (event,) = http.get(f"{path}/events").json()["items"]
    assert (event["from_state"], event["to_state"], event["by"]) == (None, "QUEUED", "local")
    assert http.get(f"{path}/attempts").json()["items"] == []


def test_a_preview_counts_and_stores_nothing(http):
    plain = http.post("/v1/experiments/preview", json=with_model(attention={"type": "none"})).json()
    cbam = http.post("/v1/experiments/preview", json=with_model(attention={"type": "cbam"})).json()
    assert cbam["parameters"] - plain["parameters"] == cbam["attention_parameters"] > 0
    assert (plain["sites"], len(cbam["sites"])) == ([], 9)
    assert cbam["total_steps"] == cbam["train_images"] // 128
    assert http.app.state.store.page(Filter())[0] == []


def test_health_readiness_and_metrics(http):
    assert http.get("/healthz").json() == {"status": "ok"}
    ready = http.get("/readyz")
    assert ready.status_code == 200
    assert set(ready.json()["degraded"]) == {"dispatcher", "mlflow", "ray"}
    http.post("/v1/experiments", json=spec_dict())
    text = http.get("/metrics").text
    assert 'cbam_experiments{state="QUEUED"} 1.0' in text
    assert 'route="/v1/experiments"' in text
    assert all(f'state="{state}"' in text for state in State)


def test_the_description_is_encoded_once_and_not_sent_to_whoever_has_it(http, monkeypatch):
    first = http.get("/openapi.json")
    assert first.headers["content-type"] == "application/json"
    assert first.json() == http.app.openapi()
    monkeypatch.setattr(http.app, "openapi", lambda: pytest.fail("it was made before"))
    assert http.get("/openapi.json").content == first.content
    etag = first.headers["ETag"]
    for known in (etag, f"W/{etag}", f'"another", {etag}'):
        again = http.get("/openapi.json", headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    assert http.get("/openapi.json", headers={"If-None-Match": '"another"'}).content == first.content


def test_every_route_is_documented(http):
    document = http.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description"), f"{method} {path}"
    refused = document["paths"]["/v1/experiments"]["post"]["responses"]["422"]["content"]
    assert list(refused) == [PROBLEM]
