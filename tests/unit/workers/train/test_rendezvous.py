"""Where the ranks of a gang meet: by IPv4, by IPv6, by name."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.ports import free_port
from workers.train.distributed import _open_store


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_two_ranks_meet(host):
    address = (host, free_port())
    with ThreadPoolExecutor(1) as other:
        joining = other.submit(_open_store, address, 1, 2)
        held = _open_store(address, 0, 2)
        held.set("key", "value")
        assert joining.result(timeout=60).get("key") == b"value"
