"""Users who reach for what is not theirs."""

import re
import time

import httpx2
import pytest

from service.api.middleware.authentication import STAY_SECONDS
from service.client.client import Client
from service.client.errors import ApiError
from service.domain.roles import Role
from tests.support.specs import spec_dict


def operations(target) -> list[tuple[str, str]]:
    """Every call of the API that names one experiment and is more than looking."""
    paths = httpx2.get(f"{target.url}/openapi.json").json()["paths"]
    return [
        (method.upper(), path)
        for path, methods in paths.items()
        for method in methods
        if "{experiment_id}" in path and method not in ("get", "head") and not path.endswith("/clone")
    ]


@pytest.fixture(scope="module")
def ada(target):
    with target.client("ada") as client:
        yield client


@pytest.fixture(scope="module")
def mallory(target):
    with target.client("mallory") as client:
        yield client


@pytest.fixture(scope="module")
def viewer(target):
    with target.client("eve", Role.VIEWER) as client:
        yield client


def test_nobody_changes_anothers_experiment_by_any_call(target, ada, mallory, viewer):
    place = ada.post("/v1/experiments", json=spec_dict()).headers["Location"]
    before = ada.get(place).json()
    tried = operations(target)
    assert len(tried) >= 4
    for method, path in tried:
        reads = path.endswith("/link")  # of a file, which all users may read; a viewer makes nothing
        for thief in (viewer,) if reads else (mallory, viewer):
            answer = thief.request(method, re.sub(r"/v1/experiments/{experiment_id}", place, path), json={})
            assert answer.status_code == 403, f"{method} {path}: {answer.text}"
    assert ada.get(place).json() == before


def test_a_viewer_writes_nothing_anywhere(target, viewer):
    paths = httpx2.get(f"{target.url}/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method in methods.keys() - {"get", "head"}:
            answer = viewer.request(method.upper(), re.sub(r"{\w+}", "x", path), json={})
            assert answer.status_code in (403, 404), f"{method} {path}: {answer.text}"


def test_only_admins_see_tokens_and_audit_events(target, mallory, viewer):
    for thief in (mallory, viewer):
        for path in ("/v1/tokens", "/v1/audit"):
            assert thief.get(path).status_code == 403


def test_many_at_once_are_each_asked_for(ada, mallory, viewer):
    places = [ada.post("/v1/experiments", json=spec_dict(project="bulk")).headers["Location"] for _ in range(2)]
    own = mallory.post("/v1/experiments", json=spec_dict(project="bulk")).headers["Location"]
    ids = [place.rpartition("/")[2] for place in (*places, own)]
    for action in ("cancel", "delete"):
        results = mallory.post(f"/v1/bulk/{action}", json={"ids": ids}).json()["results"]
        assert [(r["problem"] or {}).get("status") for r in results[:2]] == [403, 403]
        by_filter = mallory.post(f"/v1/bulk/{action}", json={"filter": {"project": "bulk"}}).json()["results"]
        assert {result["id"] for result in by_filter} <= {ids[2]}
        assert viewer.post(f"/v1/bulk/{action}", json={"ids": ids}).status_code == 403
    assert [ada.get(place).json()["desired"] for place in (*places, own)] == ["run", "run", "cancel"]


def test_the_client_sends_its_token_with_streams_too(target, ada):
    made = ada.post("/v1/experiments", json=spec_dict()).json()
    with Client(target.url, target.token("watcher", Role.VIEWER)) as client:
        assert next(client.follow_events(made["id"])).to_state == "QUEUED"
    with Client(target.url, "cbam_wrong") as stranger, pytest.raises(ApiError) as refused:
        next(stranger.follow_events(made["id"]))
    assert refused.value.status == 401


def test_a_stream_ends_once_its_token_is_revoked(target, ada):
    place = ada.post("/v1/experiments", json=spec_dict()).headers["Location"]
    with target.client("leaver") as leaver, leaver.stream("GET", f"{place}/events/stream") as stream:
        lines = stream.iter_lines()
        assert next(lines)
        token_id = leaver.get("/v1/whoami").json()["token_id"]
        revoked = httpx2.delete(
            f"{target.url}/v1/tokens/{token_id}", headers={"Authorization": f"Bearer {target.admin}"}
        )
        assert revoked.is_success
        time.sleep(STAY_SECONDS)  # so long it may go on unasked
        assert ada.post(f"{place}/pause").status_code == 202
        assert ada.patch(place, json={"priority": 1}).is_success
        rest = list(lines)
    assert not any("end" in line for line in rest)


def test_a_user_does_not_become_an_admin(target, mallory):
    for wanted in ({"name": "mallory", "role": "admin"}, {"name": "admin", "role": "user"}):
        assert mallory.post("/v1/tokens", json=wanted).status_code == 403
    for header in ("X-Role", "X-User", "X-Remote-User", "X-Forwarded-User", "X-Original-URL"):
        assert mallory.get("/v1/audit", headers={header: "admin"}).status_code == 403


def test_an_experiment_cannot_be_laid_at_anothers_door(mallory):
    made = mallory.post("/v1/experiments", json=spec_dict() | {"tags": {"owner": "ada"}})
    assert made.json()["owner"] == "mallory"
    assert mallory.post("/v1/experiments", json=spec_dict() | {"owner": "ada"}).status_code == 422


def test_anothers_idempotency_key_gives_nothing(ada, mallory):
    key = {"Idempotency-Key": "guessable"}
    mine = ada.post("/v1/experiments", json=spec_dict(), headers=key).json()
    theirs = mallory.post("/v1/experiments", json=spec_dict(), headers=key).json()
    assert (mine["id"] != theirs["id"], theirs["owner"]) == (True, "mallory")
    assert mallory.post("/v1/experiments", json=spec_dict(name="other"), headers=key).status_code == 422


def test_the_history_tells_who_it_was(target, ada, mallory):
    place = ada.post("/v1/experiments", json=spec_dict()).headers["Location"]
    assert mallory.post(f"{place}/cancel").status_code == 403
    assert ada.get(f"{place}/events").json()["items"][0]["by"] == "ada"
