"""Who is let in, and who may do what, over HTTP."""

import re

import pytest

from service.auth.tokens import Tokens
from service.domain.roles import Role
from service.schemas.auth import TokenRequest
from tests.support.specs import spec_dict

OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"}
LINK = "/v1/downloads/{name}"  # brings a secret of its own: test_files.py


@pytest.fixture
def tokens(http):
    return Tokens(http.app.state.store.database)


@pytest.fixture
def bearer(tokens):
    """Makes a token and gives the headers of its bearer."""

    def make(name: str, role: Role = Role.USER) -> dict[str, str]:
        _, secret = tokens.create(TokenRequest(name=name, role=role), by="test")
        return {"Authorization": f"Bearer {secret}"}

    return make


def test_without_any_token_everybody_on_loopback_is_the_local_admin(http):
    path = http.post("/v1/experiments", json=spec_dict()).headers["Location"]
    assert http.get(path).json()["owner"] == "local"
    assert http.post(f"{path}/cancel").status_code == 202


@pytest.mark.parametrize("settings", [{"failed_logins_per_minute": 1000}], indirect=True)
def test_one_token_closes_the_server_to_whoever_has_none(http, bearer):
    key = bearer("ada", Role.VIEWER)
    routes = http.get("/openapi.json").json()["paths"]
    for path in routes.keys() - OPEN - {LINK}:
        for method in routes[path]:
            answer = http.request(method, re.sub(r"{\w+}", "x", path))
            assert (answer.status_code, answer.headers["WWW-Authenticate"][:6]) == (401, "Bearer"), f"{method} {path}"
            assert {"401", "403"} <= routes[path][method]["responses"].keys()
            assert routes[path][method]["security"] == [{"HTTPBearer": []}]
    assert http.get("/nowhere").status_code == 401
    assert http.get("/nowhere", headers=key).status_code == 404
    assert {http.get(path).status_code for path in OPEN} == {200}


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer cbam_wrong", "Basic YTpi", "Bearer \xff"])
def test_what_is_no_token_is_a_401(http, bearer, header):
    bearer("ada")
    answer = http.get("/v1/experiments", headers={"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_viewer_reads_and_a_user_writes(http, bearer):
    viewer, user = bearer("eve", Role.VIEWER), bearer("ada")
    made = http.post("/v1/experiments", json=spec_dict(), headers=user)
    assert (made.status_code, made.json()["owner"]) == (201, "ada")
    assert http.get(made.headers["Location"], headers=viewer).status_code == 200
    refused = http.post("/v1/experiments", json=spec_dict(), headers=viewer)
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
    assert "viewer" in refused.json()["detail"]


def test_only_the_owner_and_admins_change_an_experiment(http, bearer):
    ada, bob, root = bearer("ada"), bearer("bob"), bearer("root", Role.ADMIN)
    path = http.post("/v1/experiments", json=spec_dict(), headers=ada).headers["Location"]
    assert http.get(path, headers=bob).status_code == 200
    refused = http.post(f"{path}/cancel", headers=bob)
    assert refused.status_code == 403
    assert "ada" in refused.json()["detail"]
    assert http.get(path, headers=ada).json()["desired"] == "run"
    assert http.post(f"{path}/cancel", headers=root).status_code == 202
    assert http.post(f"{path}/cancel", headers=bearer("ada")).status_code == 202, "another token of the same owner"


def test_a_revoked_token_is_out_at_once_and_the_server_stays_closed(http, tokens):
    row, secret = tokens.create(TokenRequest(name="ada", role=Role.ADMIN), by="test")
    headers = {"Authorization": f"Bearer {secret}"}
    assert http.get("/v1/experiments", headers=headers).status_code == 200
    tokens.revoke(row.id)
    assert http.get("/v1/experiments", headers=headers).status_code == 401
    assert http.get("/v1/experiments").status_code == 401


def test_an_idempotency_key_belongs_to_its_owner(http, bearer):
    key = {"Idempotency-Key": "monday"}
    ids = [
        http.post("/v1/experiments", json=spec_dict(name=name), headers=bearer(name) | key).json()["id"]
        for name in ("ada", "bob", "ada")
    ]
    assert ids[0] == ids[2] != ids[1]


def test_readiness_tells_strangers_no_details(http, bearer):
    key = bearer("eve", Role.VIEWER)
    shown = [http.get("/readyz", headers=headers).json()["components"]["ray"] for headers in ({}, key)]
    assert [bool(component["detail"]) for component in shown] == [False, True]


@pytest.mark.parametrize(("action", "state"), [("cancel", "QUEUED"), ("delete", "QUEUED")])
def test_a_bulk_call_for_anothers_experiments_takes_none_of_ones_own(http, bearer, action, state):
    """The filter's owner was replaced by the caller's name: ada, who named bob's, lost all of hers."""
    ada, bob, root = bearer("ada"), bearer("bob"), bearer("root", Role.ADMIN)
    hers, his = (http.post("/v1/experiments", json=spec_dict(), headers=key).json()["id"] for key in (ada, bob))

    def found(key, **where):
        body = {"filter": {"state": [state], **where}, "dry_run": True}
        answer = http.post(f"/v1/bulk/{action}", json=body, headers=key).json()
        return {result["id"] for result in answer["results"]}

    assert found(ada, owner="bob") == set()
    assert found(ada, owner="ada") == found(ada) == {hers}
    assert found(root, owner="bob") == {his}
    assert found(root) == {hers, his}
    http.post(f"/v1/bulk/{action}", json={"filter": {"owner": "bob"}}, headers=ada)
    assert http.get(f"/v1/experiments/{hers}", headers=ada).json()["desired"] == "run"
