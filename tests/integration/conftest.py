from collections.abc import Iterator

import pytest

from tests.support.ranks import Ranks, RankServer


@pytest.fixture(scope="session")
def rank_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RankServer]:
    """What forks the ranks of a whole run."""
    server = RankServer(tmp_path_factory.mktemp("ranks"))
    yield server
    server.stop()


@pytest.fixture
def ranks(rank_server: RankServer) -> Iterator[Ranks]:
    """Starts ranks as processes; those that a test leaves are killed with it."""
    ranks = Ranks(rank_server)
    yield ranks
    ranks.end()
