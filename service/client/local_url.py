"""Where the local stack answers, for a client that was given no address."""

import json
import os
from pathlib import Path

from service.home import DEFAULT_HOME, absolute
from workers.protocol.addresses import host_and_port

DEFAULT_URL = "http://127.0.0.1:8000"


def local_url() -> str:
    """The address of the stack of $CBAM_HOME. No settings are read: this environment may have no server."""
    return recorded_url(local_home())


def local_home() -> Path:
    """The folder of the local stack: $CBAM_HOME, or ~/.cbam."""
    return absolute(Path(os.environ.get("CBAM_HOME") or DEFAULT_HOME), "CBAM_HOME")


def public_url(url: str) -> str:
    """Where people reach the server that this process reaches at `url`: in a container, CBAM_PUBLIC_URL."""
    return os.environ.get("CBAM_PUBLIC_URL", "").rstrip("/") or url


def recorded_url(home: Path) -> str:
    """Where the API of the stack in `home` is, running or not; the default where there is no stack."""
    try:
        record = json.loads((home / "stack.json").read_text(encoding="utf-8"))
        return f"http://{host_and_port(record['host'], int(record['ports']['api']))}"
    except (OSError, ValueError, TypeError, KeyError):  # none, or a damaged one, which `cbam up` tells of
        return DEFAULT_URL
