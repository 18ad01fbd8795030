"""Room for those who follow something or download: one caller never takes all of it from the others."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from service.domain.roles import Caller
from service.errors import TooManyOwnStreams, TooManyStreams

MOST_VIEWERS = 1000


class Seats:
    """How many streams and downloads each caller has now."""

    def __init__(self, most_of_one: int) -> None:
        self._most_of_one = most_of_one
        self._taken: Counter[str] = Counter()  # by the name of who follows

    @contextmanager
    def seat(self, caller: Caller) -> Iterator[None]:
        """Room for one stream, taken before it begins; on their own machine one user may have all.

        Raises TooManyStreams where no more viewers are taken, TooManyOwnStreams where no more of this one are.
        """
        if self._taken.total() >= MOST_VIEWERS:
            raise TooManyStreams
        if caller.token_id is not None and self._taken[caller.name] >= self._most_of_one:
            raise TooManyOwnStreams(f"you follow {self._most_of_one} logs and events already; end one of them first")
        self._taken[caller.name] += 1
        try:
            yield
        finally:
            self._taken[caller.name] -= 1
            self._taken += Counter()  # forgets who has none
