"""Wait for the end of an experiment or a study: look again and again, also while the server is restarted."""

import time
from collections.abc import Callable
from typing import Protocol

from service.client.errors import NotReady, ServerUnreachable, TooMany
from service.errors import ServiceError

LOOK_SECONDS = 0.5


class WaitTimeout(ServiceError):
    """It has not ended in time; it goes on."""


class Waitable(Protocol):
    """What may be waited for."""

    @property
    def id(self) -> str: ...  # noqa: D102

    @property
    def state(self) -> str: ...  # noqa: D102

    @property
    def has_ended(self) -> bool: ...  # noqa: D102

    def look(self, *, until: float | None) -> None:
        """Look again, patiently, but not after the time `until` (of `time.monotonic`)."""


def wait_for(what: Waitable, show: Callable[[], None] | None, *, timeout: float | None) -> None:
    """Wait until it has ended, and have it shown after every look. Raises WaitTimeout after `timeout` seconds."""
    deadline = None if timeout is None else time.monotonic() + timeout
    pause = 0.0  # it may have ended since it was last looked at
    while True:
        if show is not None:
            show()
        if what.has_ended:
            return
        left = LOOK_SECONDS if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise WaitTimeout(f"{what.id} is {what.state} after {timeout} s; it goes on")
        time.sleep(min(pause, left))
        _look(what, deadline)
        pause = LOOK_SECONDS


def _look(what: Waitable, deadline: float | None) -> None:
    try:
        what.look(until=deadline)
    except (ServerUnreachable, NotReady, TooMany) as error:
        if deadline is None or time.monotonic() < deadline:
            raise
        raise WaitTimeout(f"{what.id} was {what.state} when it was last seen; since then, {error}") from error
