"""How often: a bucket of tokens for each caller, which a request takes from and time fills again."""

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network

MOST_KEYS = 10_000  # whoever has not come for longest is forgotten; a full bucket is what they would find


class TokenBuckets:
    """One bucket for each key, in this process alone: behind n replicas a caller may do n times as much.

    Not for several threads at once; the event loop is one.
    """

    def __init__(self, *, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_second = per_second
        self.burst = burst
        self.clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> level, when it was that

    def wait_seconds(self, key: str) -> float:
        """How long until something can be taken; 0.0 where it can be now."""
        return max(0.0, 1.0 - self._level(key)) / self.per_second

    def take(self, key: str) -> float:
        """Take one. Returns 0.0, or how long to wait where the bucket is empty and nothing was taken."""
        wait = self.wait_seconds(key)
        if wait == 0.0:
            self._levels[key] = (self._level(key) - 1.0, self.clock())
            self._levels.move_to_end(key)
            if len(self._levels) > MOST_KEYS:
                self._levels.popitem(last=False)
        return wait

    def _level(self, key: str) -> float:
        level, at = self._levels.get(key, (self.burst, 0.0))
        return min(self.burst, level + (self.clock() - at) * self.per_second)


def network_of(address: str) -> str:
    """Whose address it is: of IPv6 the /64, which one machine has to itself."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    return str(ip_network((parsed, 64), strict=False)) if isinstance(parsed, IPv6Address) else address
