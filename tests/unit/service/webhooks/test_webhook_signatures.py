"""Our signatures against the reference implementation of Standard Webhooks, in both directions."""

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from service.webhooks.signing import signed_headers

PAGE = Path(__file__).parents[4] / "docs" / "security.md"
SECRET = "whsec_" + b64encode(bytes(range(32))).decode()
BODY = json.dumps({"type": "webhook.test", "data": {"name": "é…"}}, ensure_ascii=False).encode()
Headers = dict[str, str]
TAMPERED: dict[str, Callable[[Headers, bytes], tuple[Headers, bytes]]] = {
    "body": lambda headers, body: (headers, body.replace(b"webhook.test", b"webhook.tesT")),
    "id": lambda headers, body: (headers | {"webhook-id": "msg_2"}, body),
    "time": lambda headers, body: (
        headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)},
        body,
    ),
    "signature": lambda headers, body: (
        headers | {"webhook-signature": "v1," + b64encode(bytes(32)).decode()},
        body,
    ),
    "version of the signature": lambda headers, body: (
        headers | {"webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")},
        body,
    ),
}


def ours(secret: str = SECRET, at: float | None = None) -> Headers:
    return dict(signed_headers(secret, "msg_1", int(at or time.time()), BODY))


def theirs(secret: str = SECRET, at: float | None = None) -> Headers:
    moment = datetime.fromtimestamp(int(at or time.time()), UTC)
    signature = Webhook(secret).sign("msg_1", moment, BODY.decode())
    return {"webhook-id": "msg_1", "webhook-timestamp": f"{moment.timestamp():.0f}", "webhook-signature": signature}


@pytest.fixture(scope="module")
def is_ours() -> Callable[[str, Headers, bytes], bool]:
    """The check that docs/security.md gives to receivers."""
    (block,) = re.findall(r"^```python\n(.*?def is_ours.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Callable[[str, Headers, bytes], bool]] = {}
    exec(compile(block, "docs/security.md", "exec"), names)
    return names["is_ours"]


@given(
    key=st.binary(min_size=1, max_size=64),
    message_id=st.text(min_size=1, max_size=40),
    timestamp=st.integers(0, 2**33),
    body=st.text(max_size=200),
)
def test_both_sign_every_message_alike(key, message_id, timestamp, body):
    secret = "whsec_" + b64encode(key).decode()
    headers = signed_headers(secret, message_id, timestamp, body.encode())
    expected = Webhook(secret).sign(message_id, datetime.fromtimestamp(timestamp, UTC), body)
    assert headers["webhook-signature"] == expected


def test_theirs_accepts_what_we_sign():
    assert Webhook(SECRET).verify(BODY, ours()) == json.loads(BODY)


@pytest.mark.parametrize("what", TAMPERED)
def test_theirs_refuses_what_was_tampered_with(what):
    headers, body = TAMPERED[what](ours(), BODY)
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(SECRET).verify(body, headers)


def test_theirs_refuses_another_secret_and_an_old_message():
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook("whsec_" + b64encode(bytes(32)).decode()).verify(BODY, ours())
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(SECRET).verify(BODY, ours(at=time.time() - 3600))


def test_the_check_of_the_docs_accepts_what_they_sign_also_among_other_signatures(is_ours):
    headers = theirs()
    assert is_ours(SECRET, headers, BODY)
    other = "v1," + b64encode(bytes(32)).decode()  # as while a secret is renewed
    assert is_ours(SECRET, headers | {"webhook-signature": f"{other} {headers['webhook-signature']}"}, BODY)


@pytest.mark.parametrize("what", TAMPERED)
def test_the_check_of_the_docs_refuses_what_was_tampered_with(is_ours, what):
    headers, body = TAMPERED[what](theirs(), BODY)
    assert not is_ours(SECRET, headers, body)


def test_the_check_of_the_docs_refuses_another_secret_and_an_old_message(is_ours):
    assert not is_ours("whsec_" + b64encode(bytes(32)).decode(), theirs(), BODY)
    assert not is_ours(SECRET, theirs(at=time.time() - 3600), BODY)
