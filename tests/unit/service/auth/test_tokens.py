"""Tokens: made, listed, revoked; the first one; and a server that does not open without one."""

import json
import stat
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, text, update
from typer.testing import CliRunner

from service.api.app import create_app
from service.auth.tokens import Tokens
from service.cli.main import app
from service.database.models.auth import Token
from service.domain.roles import Role
from service.domain.values import utc_now
from service.errors import NoTokens, UnusableToken
from service.schemas.auth import TokenRequest


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


@pytest.fixture
def admin(http) -> dict[str, str]:
    wanted = TokenRequest(name="root", role=Role.ADMIN)
    return bearer(Tokens(http.app.state.store.database).create(wanted, by="test")[1])


def test_an_admin_makes_lists_and_revokes(http, admin):
    made = http.post("/v1/tokens", json={"name": "ada", "note": "laptop", "expires_days": 30}, headers=admin)
    assert made.status_code == 201
    token = made.json()
    assert http.get("/v1/whoami", headers=bearer(token["secret"])).json() == {
        "name": "ada",
        "role": "user",
        "token_id": token["id"],
        "disk_bytes": 0,
        "disk_quota_bytes": None,
    }
    listed = http.get("/v1/tokens", headers=admin)
    assert token["secret"] not in listed.text
    assert [(t["name"], t["created_by"]) for t in listed.json()["items"]] == [("ada", "root"), ("root", "test")]
    assert http.delete(f"/v1/tokens/{token['id']}", headers=admin).json()["revoked_at"] is not None
    assert http.delete(f"/v1/tokens/{token['id']}", headers=admin).status_code == 200, "twice is no error"
    assert http.get("/v1/whoami", headers=bearer(token["secret"])).status_code == 401
    assert http.delete("/v1/tokens/nothere", headers=admin).status_code == 404


@pytest.mark.parametrize("role", ["viewer", "user"])
def test_tokens_are_for_admins(http, admin, role):
    secret = http.post("/v1/tokens", json={"name": "eve", "role": role}, headers=admin).json()["secret"]
    wanted = {"name": "eve", "role": "admin"}
    assert http.post("/v1/tokens", json=wanted, headers=bearer(secret)).status_code == 403
    assert http.get("/v1/tokens", headers=bearer(secret)).status_code == 403
    assert http.delete("/v1/tokens/x", headers=bearer(secret)).status_code == 403


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "a b"}, "/name"),
        ({"name": "ada\n"}, "/name"),
        ({"name": "dispatcher host:1"}, "/name"),
        ({"name": "a", "role": "root"}, "/role"),
        ({"name": "a", "expires_days": 0}, "/expires_days"),
        ({"name": "a", "expires_days": 10**30}, "/expires_days"),
        ({"name": "a", "expires_days": "7"}, "/expires_days"),
        ({"name": "a", "secret": "mine"}, "/secret"),
    ],
)
def test_a_token_that_cannot_be_is_refused(http, admin, wanted, pointer):
    answer = http.post("/v1/tokens", json=wanted, headers=admin)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_an_expired_token_is_out(http, admin):
    token = http.post("/v1/tokens", json={"name": "ada", "expires_days": 1}, headers=admin).json()
    assert http.get("/v1/whoami", headers=bearer(token["secret"])).status_code == 200
    with http.app.state.store.database.writing() as session:
        past = utc_now() - timedelta(seconds=1)
        session.execute(update(Token).where(Token.id == token["id"]).values(expires_at=past))
    assert http.get("/v1/whoami", headers=bearer(token["secret"])).status_code == 401


def test_the_database_holds_no_secret(http, admin):
    secret = http.post("/v1/tokens", json={"name": "ada"}, headers=admin).json()["secret"]
    with http.app.state.store.database.reading() as session:
        stored = str([[*row] for row in session.execute(text("SELECT * FROM tokens"))])
    assert secret not in stored
    assert secret.removeprefix("cbam_")[5:] not in stored


@pytest.mark.parametrize("headers", [{"X-Forwarded-For": "8.8.8.8"}, {"Forwarded": "for=8.8.8.8"}, {"Via": "1.1 x"}])
def test_what_a_proxy_forwards_is_not_the_own_machine(http, headers):
    assert http.get("/v1/experiments").status_code == 200
    assert http.get("/v1/experiments", headers=headers).status_code == 401


def test_a_server_that_is_reached_from_outside_after_all_takes_nobody_for_local(settings):
    elsewhere = settings.model_copy(update={"allowed_hosts": ("192.0.2.7",)})
    with TestClient(create_app(elsewhere), base_url="http://192.0.2.7") as client:
        assert client.get("/v1/experiments").status_code == 401


def test_beyond_loopback_it_does_not_start_without_a_token(settings):
    outside = settings.model_copy(update={"host": "0.0.0.0", "allowed_hosts": ("lab.example",)})
    with pytest.raises(NoTokens, match="cbam token create"), TestClient(create_app(outside)):
        pass
    app = create_app(outside)
    _, secret = Tokens(app.state.store.database).create(TokenRequest(name="ada"), by="test")
    with TestClient(app, base_url="http://lab.example") as client:
        assert client.get("/v1/experiments").status_code == 401
        assert client.get("/v1/experiments", headers=bearer(secret)).status_code == 200
        assert client.get("/healthz", headers={"host": "other.example"}).status_code == 400


def test_the_first_start_leaves_a_token_that_its_owner_alone_can_read(settings):
    path = settings.home / "secrets" / "admin_token"
    outside = settings.model_copy(update={"host": "0.0.0.0", "bootstrap_token_file": path})
    for _ in range(2):  # the second start finds a token, and leaves everything as it is
        with TestClient(create_app(outside), base_url="http://127.0.0.1") as client:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            me = client.get("/v1/whoami", headers=bearer(path.read_text().strip())).json()
            assert (me["name"], me["role"]) == ("admin", "admin")
            with client.app.state.store.database.reading() as session:
                assert len(session.scalars(select(Token)).all()) == 1


def test_the_first_start_takes_the_token_that_the_operator_hands_in(settings, tmp_path):
    path = tmp_path / "secret"
    path.write_text("x" * 31)
    handed = settings.model_copy(update={"bootstrap_token_file": path})
    with pytest.raises(UnusableToken), TestClient(create_app(handed)):
        pass
    path.write_text("0123456789abcdef" * 4 + "\n")
    with TestClient(create_app(handed), base_url="http://127.0.0.1") as client:
        assert client.get("/v1/whoami", headers=bearer("0123456789abcdef" * 4)).json()["role"] == "admin"


def test_the_command_makes_the_first_token_on_the_database_itself(settings, monkeypatch):
    monkeypatch.setenv("CBAM_HOME", str(settings.home))
    monkeypatch.setenv("CBAM_DATABASE_URL", settings.database_url)
    runner = CliRunner()
    made = runner.invoke(app, ["token", "create", "root", "--role", "admin", "--local"])
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        assert client.get("/v1/whoami", headers=bearer(secret)).json()["role"] == "admin"
        listed = json.loads(runner.invoke(app, ["token", "list", "--local", "--json"]).stdout)
        assert runner.invoke(app, ["token", "revoke", listed[0]["id"], "--local"]).exit_code == 0
        assert client.get("/v1/whoami", headers=bearer(secret)).status_code == 401
    assert "revoked" in runner.invoke(app, ["token", "list", "--local"]).stdout
