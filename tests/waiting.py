"""Nothing sleeps and hopes: a test waits for what it needs, and says what it waited for when it does not come."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, *, seconds: float = 60.0) -> T:
    """The first true value of the condition. Fails after `seconds` of false ones."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.02)
