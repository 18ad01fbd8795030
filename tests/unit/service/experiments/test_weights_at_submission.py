"""Weights to start from: looked at when they are asked for, and from then on the same bytes or a refusal."""

import hashlib
import json

import pytest
from sqlalchemy import text

from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder

SUBMIT = "/v1/experiments"
BODY = {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}}


def starting(weights, **changes):
    return spec_dict(model=BODY | {"weights": weights}, **changes)


def refusal(http, body, path=SUBMIT):
    answer = http.post(path, json=body)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    return error["pointer"], error["detail"]


@pytest.fixture
def file(settings):
    """A file below the data roots, and its digest."""
    settings.data_roots[0].mkdir(parents=True, exist_ok=True)
    path = settings.data_roots[0] / "w.pth"
    path.write_bytes(b"weights")
    return path, hashlib.sha256(b"weights").hexdigest()


@pytest.fixture
def exported(http, settings):
    """An experiment that has left weights: its id."""
    made = http.post(SUBMIT, json=spec_dict()).json()["id"]
    path = ExperimentFolder(settings.storage, made).weights
    path.parent.mkdir(parents=True)
    path.write_bytes(b"weights")
    return made


def weights_of(http, answer):
    assert answer.status_code == 201, answer.text
    return http.get(f"{SUBMIT}/{answer.json()['id']}").json()["spec"]["model"]["weights"]


def test_the_digest_of_a_file_is_recorded(http, file):
    path, digest = file
    weights = weights_of(http, http.post(SUBMIT, json=starting(str(path))))
    assert weights == {
        "source": str(path),
        "head": "load",
        "attention": "load",
        "normalisation": "auto",
        "sha256": digest,
    }


def test_the_digest_of_an_experiment_is_recorded_as_its_export_says(http, settings, exported):
    path = ExperimentFolder(settings.storage, exported).weights
    assert (
        weights_of(http, http.post(SUBMIT, json=starting(exported)))["sha256"] == hashlib.sha256(b"weights").hexdigest()
    )
    told = {"files": {path.name: {"bytes": 7, "sha256": "a" * 64}}}
    path.with_name("manifest.json").write_text(json.dumps(told))
    assert weights_of(http, http.post(SUBMIT, json=starting(exported)))["sha256"] == "a" * 64


def test_a_clone_keeps_the_bytes_or_is_refused(http, file):
    path, digest = file
    first = http.post(SUBMIT, json=starting(str(path))).json()["id"]
    assert weights_of(http, http.post(f"{SUBMIT}/{first}/clone", json={}))["sha256"] == digest
    path.write_bytes(b"others")
    pointer, detail = refusal(http, {}, f"{SUBMIT}/{first}/clone")
    assert pointer == "/model/weights/sha256"
    assert hashlib.sha256(b"others").hexdigest() in detail
    renewed = http.post(f"{SUBMIT}/{first}/clone", json={"model.weights": str(path)})
    assert weights_of(http, renewed)["sha256"] == hashlib.sha256(b"others").hexdigest()


def test_the_same_key_gives_the_same_experiment_though_the_digest_was_added(http, file):
    answers = [http.post(SUBMIT, json=starting(str(file[0])), headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_what_is_not_there_or_not_opened_is_refused(http, settings, file, tmp_path):
    roots = settings.data_roots[0]
    assert refusal(http, starting(str(roots / "no.pth")))[1].endswith("cannot be read: No such file or directory")
    assert "not below one of the data roots" in refusal(http, starting("/etc/passwd"))[1]
    outside = tmp_path / "outside.pth"
    outside.write_bytes(b"x")
    (roots / "link.pth").symlink_to(outside)
    assert "not below one of the data roots" in refusal(http, starting(str(roots / "link.pth")))[1]
    (roots / "folder").mkdir()
    assert refusal(http, starting(str(roots / "folder")))[0] == "/model/weights"
    assert refusal(http, starting("relative/w.pth"))[0] == "/model/weights"
    assert refusal(http, starting(f"{roots}/../x"))[0] == "/model/weights"


def test_what_the_server_does_not_see_is_left_to_the_workers(http, settings):
    assert not settings.data_roots[0].exists()
    weights = weights_of(http, http.post(SUBMIT, json=starting(str(settings.data_roots[0] / "w.pth"))))
    assert weights["sha256"] is None


def test_an_experiment_without_weights_is_refused(http, database_of, exported):
    assert "there is no experiment nobody" in refusal(http, starting("nobody"))[1]
    pending = http.post(SUBMIT, json=spec_dict()).json()["id"]
    assert "has left no weights: it is QUEUED" in refusal(http, starting(pending))[1]
    assert refusal(http, starting({"source": exported, "sha256": "0" * 64}))[0] == "/model/weights/sha256"


@pytest.fixture
def database_of(http):
    return http.app.state.store.database


def test_two_things_to_start_from_and_rates_of_nothing_are_refused(http):
    body = spec_dict(model={"backbone": "resnet18", "pretrained": True, "weights": "/w"})
    assert "choose one" in refusal(http, body)[1]
    body = spec_dict(model={"backbone": "resnet18", "attention": {"type": "none"}})
    body["train"]["attention_lr_scale"] = 2.0
    assert "attention_lr_scale" in refusal(http, body)[1]


def comparison(base, **variants):
    return {"name": "two", "base": base, "variants": {"one": {}, **variants}, "seeds": 3}


def test_all_runs_of_a_comparison_start_from_the_same_bytes(http, file, database_of):
    path, digest = file
    two = {"two": {"model.attention": "se"}}
    assert http.post("/v1/comparisons", json=comparison(starting(str(path)), **two)).status_code == 201
    with database_of.reading() as session:
        (specs,) = session.execute(text("SELECT specs FROM studies")).scalars()
    specs = json.loads(specs) if isinstance(specs, str) else specs
    assert {spec["model"]["weights"]["sha256"] for spec in specs.values()} == {digest}


def test_a_variant_that_starts_elsewhere_is_refused(http, file):
    path, _ = file
    other = path.with_name("other.pth")
    other.write_bytes(b"x")
    body = comparison(starting(str(path)), two={"model.weights": str(other)})
    pointer, detail = refusal(http, body, "/v1/comparisons")
    assert pointer == "/variants/two"
    assert "holds `model.weights` equal" in detail
    pointer, _ = refusal(http, comparison(starting("nobody"), two={"model.attention": "se"}), "/v1/comparisons")
    assert pointer == "/base/model/weights"
