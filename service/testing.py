"""A clock for tests of the service and of what is built on it; the cluster in memory is `service.cluster.in_memory`."""


class FakeClock:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds, as `time.monotonic` gives them."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
