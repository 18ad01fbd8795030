"""The last net under secrets: what looks like one is taken out of whatever is written for people to read.

Nothing hands a token to a log on purpose; but a user may put one into a path, and an error may quote it.
"""

import re

REMOVED = "[secret]"
_KEYS = re.compile(r"\b(cbam_|whsec_)[A-Za-z0-9_+/=-]{16,}")
_PASSWORDS = re.compile(r"(://[^\s:/@]*):[^\s/@]+@")


def redact(text: str) -> str:
    """The text without tokens, webhooks' secrets, and passwords in URLs."""
    return _PASSWORDS.sub(rf"\1:{REMOVED}@", _KEYS.sub(rf"\1{REMOVED}", text))


def without_login(url: str) -> str:
    """A URL as it may be shown to everybody: without user name and password."""
    return re.sub(r"://[^\s/@]*@", "://", url)
