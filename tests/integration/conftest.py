from collections.abc import Iterator

import pytest

from tests.ranks import Ranks


@pytest.fixture
def ranks() -> Iterator[Ranks]:
    """Starts ranks as processes; those that a test leaves are killed with it."""
    ranks = Ranks()
    yield ranks
    ranks.end()
