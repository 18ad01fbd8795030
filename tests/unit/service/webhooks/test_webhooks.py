"""Webhooks: whose they are, what they are told, and that it arrives."""

import base64
import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, update
from standardwebhooks import Webhook, WebhookVerificationError

from service.database.models.webhooks import WebhookDelivery
from service.domain.roles import LOCAL
from service.domain.values import utc_now
from service.errors import StaleMove, TooManyWebhooks
from service.schemas.auth import TokenRequest
from service.schemas.webhooks import WebhookRequest
from service.webhooks.sender import WebhookSender
from tests.support.receiver import receiving
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until

URL = "https://example.org/hook"


@pytest.fixture
def bearer(http):
    def make(name: str, role: str = "user") -> dict[str, str]:
        wanted = TokenRequest(name=name, role=role)
        return {"Authorization": f"Bearer {http.app.state.tokens.create(wanted, by='test')[1]}"}

    return make


@pytest.fixture
def receiver():
    with receiving() as receiver:
        yield receiver


@contextlib.contextmanager
def started_sender(http, settings, monkeypatch, *, look_seconds=0.02, **options):
    monkeypatch.setattr("service.webhooks.sender.LOOK_SECONDS", look_seconds)
    monkeypatch.setattr("service.webhooks.sender.PAUSES_SECONDS", (0.02,) * 3)
    allowed = settings.model_copy(update={"webhook_allow_private": True})
    webhook_sender = WebhookSender(http.app.state.store.database, allowed, **options)
    webhook_sender.start()
    try:
        yield webhook_sender
    finally:
        webhook_sender.close()


@pytest.fixture
def webhook_sender(http, settings, monkeypatch):
    with started_sender(http, settings, monkeypatch) as webhook_sender:
        yield webhook_sender


def messages(http) -> list[WebhookDelivery]:
    with http.app.state.store.database.reading() as session:
        return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.created_at)))


def test_a_webhook_is_made_shown_changed_and_removed(http):
    made = http.post("/v1/webhooks", json={"url": URL, "states": ["FAILED"]})
    assert made.status_code == 201
    path, secret = made.headers["Location"], made.json()["secret"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert secret not in http.get(path).text + http.get("/v1/webhooks").text
    changed = http.patch(path, json={"enabled": False, "project": "p"}).json()
    assert (changed["enabled"], changed["project"], changed["states"]) == (False, "p", ["FAILED"])
    assert http.patch(path, json={"project": None}).json()["project"] is None
    assert http.delete(path).status_code == 204
    assert http.get(path).status_code == 404


@pytest.mark.parametrize(
    ("wanted", "pointer"),
    [
        ({}, "/url"),
        *(({"url": url}, "/url") for url in ("", "ftp://example.org", "https://", "//example.org", "x", "file:///etc")),
        *(({"url": url}, "/url") for url in ("http://a:b@example.org", "http://example.org/#x", "http://ex ample.org")),
        *(
            ({"url": url}, "/url")
            for url in ("http://example.org/\r\nX: y", "http://example.org\\@evil", "http://é.fr")
        ),
        *(({"url": url}, "/url") for url in ("http://example.org:99999", "http://example.org:0", "http://[::1", 7)),
        ({"url": "https://example.org/" + "x" * 2048}, "/url"),
        ({"url": URL, "states": ["LOST"]}, "/states/0"),
        ({"url": URL, "states": ["FAILED"] * 99}, "/states"),
        ({"url": URL, "project": "a\0"}, "/project"),
        ({"url": URL, "secret": "mine"}, "/secret"),
    ],
)
def test_a_webhook_that_cannot_be_is_refused(http, wanted, pointer):
    answer = http.post("/v1/webhooks", json=wanted)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_other_owners_webhooks_are_as_if_they_were_not(http, bearer):
    ada, bob, root = bearer("ada"), bearer("bob"), bearer("root", "admin")
    path = http.post("/v1/webhooks", json={"url": URL}, headers=ada).headers["Location"]
    for method, place in (("GET", path), ("PATCH", path), ("DELETE", path), ("POST", f"{path}/test")):
        body = {"json": {}} if method == "PATCH" else {}
        assert http.request(method, place, headers=bob, **body).status_code == 404
    assert http.get(f"{path}/deliveries", headers=bob).status_code == 404
    assert http.get("/v1/webhooks", headers=bob).json()["items"] == []
    assert len(http.get("/v1/webhooks", headers=root).json()["items"]) == 1
    assert http.post("/v1/webhooks", json={"url": URL}, headers=bearer("eve", "viewer")).status_code == 403


def test_nobody_has_more_than_twenty(http):
    answers = [http.post("/v1/webhooks", json={"url": URL}).status_code for _ in range(21)]
    assert answers == [201] * 20 + [409]


def test_nobody_has_more_than_twenty_however_many_are_asked_for_at_once(http):
    webhooks, wanted = http.app.state.webhooks, WebhookRequest(url=URL)

    def create(_number):
        with contextlib.suppress(TooManyWebhooks):
            webhooks.create(wanted, LOCAL)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(create, range(40)))
    assert len(webhooks.seen_by(LOCAL)) == 20


def test_a_webhook_is_not_tested_without_end(http):
    path = http.post("/v1/webhooks", json={"url": URL}).headers["Location"]
    answers = [http.post(f"{path}/test").status_code for _ in range(22)]
    assert answers == [202] * 20 + [409] * 2


def test_each_is_told_of_what_it_waits_for(http, bearer, leader):
    ada, bob = bearer("ada"), bearer("bob")
    for headers, wanted in (
        (ada, {"url": f"{URL}/ada-all"}),
        (ada, {"url": f"{URL}/ada-started", "states": ["STARTING"]}),
        (ada, {"url": f"{URL}/ada-other-project", "project": "other"}),
        (bob, {"url": f"{URL}/bob-own"}),
        (bob, {"url": f"{URL}/bob-everyone", "everyone": True, "states": ["QUEUED"]}),
    ):
        assert http.post("/v1/webhooks", json=wanted, headers=headers).status_code == 201
    experiment_id = http.post("/v1/experiments", json=spec_dict(), headers=ada).json()["id"]
    leader.claim(leader.queue()[0], 1)
    urls = {w["id"]: w["url"] for w in http.get("/v1/webhooks", headers=bearer("root", "admin")).json()["items"]}
    told = {
        (urls[m.webhook_id].rpartition("/")[2], m.payload["data"]["from_state"], m.payload["data"]["to_state"])
        for m in messages(http)
    }
    assert told == {
        ("ada-all", None, "QUEUED"),
        ("ada-all", "QUEUED", "STARTING"),
        ("ada-started", "QUEUED", "STARTING"),
        ("bob-everyone", None, "QUEUED"),
    }
    assert len(messages(http)) == len(told)
    assert {m.experiment_id for m in messages(http)} == {experiment_id}


def test_whoever_was_shut_out_is_told_nothing_more(http, bearer):
    ada, root = bearer("ada"), bearer("root", "admin")
    http.post("/v1/webhooks", json={"url": URL, "everyone": True}, headers=ada)
    http.post("/v1/experiments", json=spec_dict(), headers=root)
    assert len(messages(http)) == 1
    token_id = http.get("/v1/whoami", headers=ada).json()["token_id"]
    http.delete(f"/v1/tokens/{token_id}", headers=root)
    http.post("/v1/experiments", json=spec_dict(), headers=root)
    assert len(messages(http)) == 1


def test_what_waits_for_an_owner_who_is_shut_out_is_not_sent(http, bearer, receiver, settings, monkeypatch):
    ada, root = bearer("ada"), bearer("root", "admin")
    path = http.post("/v1/webhooks", json={"url": receiver.url}, headers=ada).headers["Location"]
    http.post(f"{path}/test", headers=ada)
    token_id = http.get("/v1/whoami", headers=ada).json()["token_id"]
    assert http.delete(f"/v1/tokens/{token_id}", headers=root).is_success
    with started_sender(http, settings, monkeypatch):
        wait_until(lambda: messages(http)[0].state == "failed", "the message to be given up")
    assert "no token" in messages(http)[0].error
    assert receiver.requests == []


def test_who_has_many_slow_receivers_holds_up_nobody_else(http, bearer, settings, monkeypatch):
    sent, over = [], threading.Event()

    def send(url, *_, **__):
        if "slow" in url:
            over.wait(60)
        sent.append(url)
        return 200

    mallory, bob = bearer("mallory"), bearer("bob")
    for headers, url in [(mallory, f"{URL}/slow")] * 12 + [(bob, f"{URL}/quick")]:
        path = http.post("/v1/webhooks", json={"url": url}, headers=headers).headers["Location"]
        http.post(f"{path}/test", headers=headers)
    with started_sender(http, settings, monkeypatch, send=send):
        wait_until(lambda: sent == [f"{URL}/quick"], "what is bob's, while mallory's receivers take their time")
        over.set()
        wait_until(lambda: len(sent) == 13, "the others")


def test_an_owner_of_many_webhooks_waits_for_no_look_between_them(http, bearer, settings, monkeypatch):
    ada, sent = bearer("ada"), []

    def send(url, *_, **__):
        sent.append(url)
        return 200

    for _ in range(6):
        path = http.post("/v1/webhooks", json={"url": URL}, headers=ada).headers["Location"]
        http.post(f"{path}/test", headers=ada)
    with started_sender(http, settings, monkeypatch, look_seconds=600, send=send):
        wait_until(lambda: len(sent) == 6, "all of them")


def test_owners_take_turns_and_none_holds_more_than_two_threads(settings, store):
    webhook_sender = WebhookSender(store.database, settings)
    due = [(f"{owner}{number}", owner) for owner in "abcde" for number in range(3)]
    assert webhook_sender._chosen(due) == ["a0", "b0", "c0", "d0", "e0", "a1", "b1", "c1"]
    for webhook_id in ("a0", "a1", "c0"):
        del webhook_sender.busy[webhook_id]
    assert webhook_sender._chosen(due) == ["d1", "e1", "a0"]


def test_a_message_arrives_signed(http, receiver, webhook_sender):
    made = http.post("/v1/webhooks", json={"url": f"{receiver.url}/hook?x=1", "project": "tests"}).json()
    experiment_id = http.post("/v1/experiments", json=spec_dict()).json()["id"]
    wait_until(lambda: receiver.requests, "the message")
    ((path, headers, body),) = receiver.requests
    assert (path, headers["content-type"]) == ("/hook?x=1", "application/json")
    message = Webhook(made["secret"]).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(made["secret"]).verify(body.replace(b"QUEUED", b"FAILED"), headers)
    assert (message["type"], message["data"]["id"], message["data"]["to_state"]) == (
        "experiment.state_changed",
        experiment_id,
        "QUEUED",
    )


def test_a_failure_is_tried_again_with_the_same_id_until_it_arrives(http, receiver, webhook_sender):
    answers = iter([500, 302, 204])
    receiver.status = lambda: next(answers)
    path = http.post("/v1/webhooks", json={"url": receiver.url}).headers["Location"]
    test = http.post(f"{path}/test")
    assert (test.status_code, test.json()["state"]) == (202, "pending")
    done = wait_until(lambda: (d := http.get(test.headers["Location"]).json())["state"] == "delivered" and d, "it")
    assert (done["tries"], done["status"], done["error"]) == (3, 204, "")
    assert len({headers["webhook-id"] for _, headers, _ in receiver.requests}) == 1
    assert len(receiver.requests) == 3, "the redirect was not followed"


def test_it_is_given_up_in_the_end_and_the_history_says_why(http, receiver, webhook_sender):
    receiver.status = lambda: 500
    path = http.post("/v1/webhooks", json={"url": receiver.url}).headers["Location"]
    place = http.post(f"{path}/test").headers["Location"]
    wait_until(lambda: http.get(place).json()["state"] == "failed", "the end")
    (told,) = http.get(f"{path}/deliveries").json()["items"]
    assert (told["tries"], told["status"], told["error"]) == (4, 500, "the receiver answered 500")


def test_a_receiver_that_is_gone_is_not_asked_again(http, receiver, webhook_sender):
    receiver.status = lambda: 410
    path = http.post("/v1/webhooks", json={"url": receiver.url}).headers["Location"]
    place = http.post(f"{path}/test").headers["Location"]
    wait_until(lambda: http.get(place).json()["state"] == "failed", "the end")
    assert (len(receiver.requests), http.get(path).json()["enabled"]) == (1, False)


def test_messages_keep_their_order_and_one_slow_receiver_holds_up_no_other(http, receiver, webhook_sender):
    served = threading.Event()
    with receiving() as slow:
        slow.status = lambda: served.wait(60) and 204
        for url in (slow.url, receiver.url):
            http.post("/v1/webhooks", json={"url": url})
        ids = [http.post("/v1/experiments", json=spec_dict()).json()["id"] for _ in range(5)]
        try:
            wait_until(lambda: len(receiver.requests) == 5, "the quick one's messages")
            assert len(slow.requests) < 5
        finally:
            served.set()
    assert [json.loads(body)["data"]["id"] for *_, body in receiver.requests] == ids


def test_a_private_address_is_refused_unless_it_is_allowed(http, receiver, settings, monkeypatch):
    monkeypatch.setattr("service.webhooks.sender.LOOK_SECONDS", 0.02)
    path = http.post("/v1/webhooks", json={"url": receiver.url}).headers["Location"]
    webhook_sender = WebhookSender(http.app.state.store.database, settings)
    webhook_sender.start()
    place = http.post(f"{path}/test").headers["Location"]
    told = wait_until(lambda: (d := http.get(place).json())["error"] and d, "the refusal")
    webhook_sender.close()
    assert "CBAM_WEBHOOK_ALLOW_PRIVATE" in told["error"]
    assert (told["state"], receiver.requests) == ("pending", [])


def test_a_message_whose_sender_was_killed_is_sent_by_another(http, receiver, settings, webhook_sender):
    path = http.post("/v1/webhooks", json={"url": receiver.url, "states": ["FAILED"]}).headers["Location"]
    http.patch(path, json={"enabled": False})  # so that the living one leaves it
    message = http.app.state.webhooks.test(http.app.state.webhooks.get(path.rpartition("/")[2], LOCAL))
    with http.app.state.store.database.writing() as session:
        session.execute(update(WebhookDelivery).values(tries=1, next_at=utc_now() + timedelta(seconds=0.5)))
    http.patch(path, json={"enabled": True})
    wait_until(lambda: receiver.requests, "the message")
    wait_until(lambda: messages(http)[0].state == "delivered", "the note of it")
    assert (messages(http)[0].id, messages(http)[0].tries) == (message.id, 2)


def test_a_move_that_is_taken_back_tells_nobody(http, leader):
    http.post("/v1/webhooks", json={"url": URL, "states": ["STARTING", "RUNNING"]})
    http.post("/v1/experiments", json=spec_dict())
    row = leader.queue()[0]
    leader.claim(row, 1)
    count = len(messages(http))
    with pytest.raises(StaleMove):
        leader.claim(row, 1)
    assert len(messages(http)) == count == 1
