"""Nothing sleeps and hopes: a test waits for what it needs, and says what it waited for when it does not come."""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, *, seconds: float = 120.0) -> T:
    """The first true value of the condition. Fails after `seconds` of false ones, and says the last of them.

    The limit is for what never comes: a machine that does other work besides takes ten times as long as a quiet one.
    """
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}; last seen: {value!r}"
        time.sleep(0.02)


def has_ended(pid: int) -> bool:
    """Whether the process is gone, or waits only for its parent to take note: SIGKILL takes a moment."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
