"""What is secret is in no log and in no answer. The fixture looks through the log at the end, all of it, to DEBUG."""

import re

import httpx2
import pytest

from service.database.engine import Database
from service.settings import Settings
from service.webhooks.sender import WebhookSender
from tests.support.receiver import receiving
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def ada(target):
    with target.client("ada") as client:
        yield client


def bearer_of(client: httpx2.Client) -> str:
    return client.headers["Authorization"].removeprefix("Bearer ")


def test_no_answer_repeats_a_token(target, ada):
    secret = bearer_of(ada)
    paths = httpx2.get(f"{target.url}/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method in methods:
            place = re.sub(r"{\w+}", secret, path)
            if place.endswith("/stream"):
                continue
            answer = ada.request(method.upper(), place, params={"q": secret}, headers={"X-Request-ID": "x"})
            body = answer.text.replace(f'"instance":"{place}"', "")  # the path that was asked for is the caller's own
            assert secret not in body or answer.status_code in (404, 422), f"{method} {path}"
            assert secret not in str(answer.headers)


def test_tokens_in_every_wrong_place_reach_no_log(target, ada):
    secret = bearer_of(ada)
    ada.get(f"/v1/experiments/{secret}")
    ada.post(f"/v1/{secret}/cancel")
    ada.get("/v1/experiments", params={"token": secret, "q": secret})
    ada.get("/v1/experiments", headers={"X-Request-ID": secret[:64]})
    ada.post("/v1/experiments", json=spec_dict(name=secret[:60]) | {"token": secret})
    ada.post("/v1/experiments", content=b"{" + secret.encode(), headers={"Content-Type": "application/json"})
    httpx2.get(f"{target.url}/v1/experiments", headers={"Authorization": f"Basic {secret}"})
    httpx2.get(f"{target.url}/v1/experiments", headers={"Cookie": f"token={secret}"})
    target.raw(f"GET /v1/tokens HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\nBroken\r\n\r\n".encode())
    assert ada.get("/v1/whoami").status_code == 200


def test_a_webhooks_secret_is_shown_once_and_its_messages_hold_none(target, ada, caplog):
    with receiving() as receiver:
        made = ada.post("/v1/webhooks", json={"url": f"{receiver.url}/hook"}).json()
        target.secrets.append(made["secret"])
        database = Database(target.database_url)
        webhook_sender = WebhookSender(database, Settings(database_url=target.database_url, webhook_allow_private=True))
        with caplog.at_level("DEBUG"):
            webhook_sender.start()
            ada.post(f"/v1/webhooks/{made['id']}/test")
            ada.post("/v1/experiments", json=spec_dict())
            wait_until(lambda: len(receiver.requests) == 2, "the messages")
            webhook_sender.close()
        database.close()
        sent = str(receiver.requests)
    for secret in (*target.secrets, made["secret"].removeprefix("whsec_")):
        assert secret not in sent
        assert secret not in caplog.text
    shown = ada.get("/v1/webhooks").text + ada.get(f"/v1/webhooks/{made['id']}/deliveries").text
    assert made["secret"] not in shown


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/", "http://2130706433:{port}/"),
        *(
            "http://0x7f.1:{port}/",
            "http://0:{port}/",
            "http://[::ffff:127.0.0.1]:{port}/",
            "http://127.0.0.1.:{port}/",
        ),
        *("http://169.254.169.254/latest/meta-data/", "http://10.0.0.1:{port}/", "http://[fd00:ec2::254]/"),
    ],
)
def test_a_webhook_reaches_nothing_inside(target, ada, url):
    with receiving() as inside:
        made = ada.post("/v1/webhooks", json={"url": url.format(port=inside.url.rpartition(":")[2])})
        assert made.status_code == 201
        place = made.headers["Location"]
        database = Database(target.database_url)
        webhook_sender = WebhookSender(database, Settings(database_url=target.database_url))
        webhook_sender.start()
        try:
            message = ada.post(f"{place}/test").headers["Location"]
            told = wait_until(lambda: (d := ada.get(message).json())["error"] and d, "the refusal")
        finally:
            webhook_sender.close()
            database.close()
        assert (told["status"], inside.requests) == (None, [])
        assert "public" in told["error"] or "resolved" in told["error"]
        assert ada.delete(place).status_code == 204
