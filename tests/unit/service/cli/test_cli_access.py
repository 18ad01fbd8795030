"""`cbam token` and `cbam webhook` against a running server."""

import json

import pytest

from service.api.app import create_app
from service.webhooks.sender import WebhookSender
from tests.support.live_server import serving
from tests.support.receiver import receiving


@pytest.fixture
def database_url(tmp_path):
    return f"sqlite:///{tmp_path / 'home' / 'cbam.db'}"


@pytest.fixture
def app(settings):
    return create_app(settings)


@pytest.fixture
def server(app, monkeypatch):
    monkeypatch.delenv("CBAM_TOKEN", raising=False)
    with serving(app) as url:
        monkeypatch.setenv("CBAM_URL", url)
        yield url


def test_from_the_first_token_on_the_command_needs_one(cbam, server, monkeypatch):
    assert cbam("token", "whoami")[1] == "local, admin\n"
    code, secret, told = cbam("token", "create", "root", "--role", "admin", "--note", "mine")
    assert (code, secret.startswith("cbam_"), "CBAM_TOKEN" in told) == (0, True, True)
    code, out, told = cbam("list")
    assert (code, out, "token" in told) == (1, "", True)
    monkeypatch.setenv("CBAM_TOKEN", secret.strip())
    assert cbam("token", "whoami")[1] == "root, admin\n"
    made = json.loads(cbam("token", "create", "bob", "--expires-days", "7", "--json")[1])
    listed = cbam("token", "list")[1]
    assert all(word in listed for word in (made["id"], "bob", "until", "mine"))
    assert made["secret"] not in listed
    assert cbam("token", "revoke", made["id"])[1] == f"{made['id']}  bob  revoked\n"
    code, _, told = cbam("token", "create", "no spaces")
    assert (code, "/name" in told) == (1, True)


def test_a_webhook_from_its_first_to_its_last_day(cbam, server, app, settings):
    with receiving() as receiver:
        code, secret, told = cbam("webhook", "add", f"{receiver.url}/hook", "--state", "FAILED", "--everyone")
        assert (code, secret.startswith("whsec_")) == (0, True)
        (shown,) = json.loads(cbam("webhook", "list", "--json")[1])
        assert (shown["id"] in told, shown["states"], shown["everyone"]) == (True, ["FAILED"], True)
        webhook_sender = WebhookSender(
            app.state.store.database, settings.model_copy(update={"webhook_allow_private": True})
        )
        webhook_sender.start()
        assert cbam("webhook", "test", shown["id"])[:2] == (0, "arrived, answered 204\n")
        receiver.status = lambda: 500
        code, out, _ = cbam("webhook", "test", shown["id"])
        assert (code, out) == (1, "the receiver answered 500; it will be tried again\n")
        webhook_sender.close()
        history = json.loads(cbam("webhook", "deliveries", shown["id"], "--json")[1])
        assert [message["state"] for message in history] == ["pending", "delivered"]
        assert cbam("webhook", "disable", shown["id"])[0] == 0
        assert "disabled" in cbam("webhook", "list")[1]
        assert cbam("webhook", "enable", shown["id"])[0] == cbam("webhook", "remove", shown["id"])[0] == 0
        code, _, told = cbam("webhook", "remove", shown["id"])
        assert (code, shown["id"] in told) == (1, True)


def test_a_webhook_that_nobody_sends_says_so(cbam, server, monkeypatch):
    monkeypatch.setattr("service.cli.commands.webhook.PATIENCE_SECONDS", 0.5)
    webhook_id = json.loads(cbam("webhook", "add", "https://example.org/hook", "--json")[1])["id"]
    code, out, _ = cbam("webhook", "test", webhook_id)
    assert (code, "dispatcher" in out) == (1, True)
