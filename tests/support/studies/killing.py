"""A dispatcher that dies after so many transactions, as by SIGKILL."""

from collections.abc import Callable
from contextlib import contextmanager

import pytest

from service.dispatcher.dispatcher import Dispatcher
from service.testing import FakeClock


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


def live_and_die(
    dispatcher: Dispatcher, clock: FakeClock, *, writes: int, after_tick: Callable[[Dispatcher], None]
) -> None:
    """After so many transactions, but for renewals of the lease: what would have followed in memory is lost.

    `after_tick` waits for what the dispatcher has under way beside its ticks.
    """
    left = writes
    for rows in (dispatcher.store, dispatcher.studies.rows):
        writing = rows._writing

        @contextmanager
        def counted(writing=writing):
            nonlocal left
            with writing() as session:
                yield session
            left -= 1
            if not left:
                raise Killed

        rows._writing = counted
    with pytest.raises(Killed):
        for _ in range(400):  # a gang that was claimed and never started is given up after minutes
            dispatcher.tick()
            after_tick(dispatcher)
            clock.advance(2)
    dispatcher.studies.close()
    dispatcher.leadership.release()
