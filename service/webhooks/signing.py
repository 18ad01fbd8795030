"""Signatures of webhooks, as Standard Webhooks has them."""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from importlib.metadata import version


def signed_headers(secret: str, message_id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """The headers of Standard Webhooks 1.0: HMAC-SHA256 over id, time and body, so that neither can be changed."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return {
        "Content-Type": "application/json",
        "User-Agent": f"cbam-lab/{version('cbam-lab')}",
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }
