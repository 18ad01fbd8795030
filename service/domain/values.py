"""The present, new ids, and numbers as people read them."""

import re
import secrets
from datetime import UTC, datetime

ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford: no letter looks like a digit


def utc_now() -> datetime:
    """The present, aware."""
    return datetime.now(UTC)


def new_id() -> str:
    """Twelve letters and digits: 60 random bits."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(12))


def human_bytes(count: int) -> str:
    """A number of bytes as people read it: 1.5GB."""
    from pydantic import ByteSize  # the command starts without it

    return ByteSize(count).human_readable(decimal=True)


UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # in text: NUL, and halves of characters
