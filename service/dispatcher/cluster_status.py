"""Writes down what the dispatcher sees of the cluster, so that the API can show it without talking to Ray."""

from collections.abc import Callable, Sequence

from service.cluster.base import Node
from service.dispatcher.store import DispatcherStore

QUIET_SECONDS = 30.0  # nothing has changed: say so that often
CHANGE_SECONDS = 1.0  # something has: not more often than this


class ClusterStatusWriter:
    """Notes the nodes when they change, and now and then that they have not."""

    def __init__(self, dispatcher_store: DispatcherStore, *, clock: Callable[[], float]) -> None:
        self.store = dispatcher_store
        self.clock = clock
        self.noted: tuple[object, ...] | None = None
        self.noted_at = 0.0

    def note(self, nodes: Sequence[Node] | None, trouble: str = "") -> None:
        """What is seen now; None while the cluster cannot be seen, and why."""
        seen = (None if nodes is None else tuple(nodes), trouble)
        wait = QUIET_SECONDS if seen == self.noted else CHANGE_SECONDS
        if self.noted is not None and self.clock() - self.noted_at < wait:
            return
        self.store.note_cluster(reachable=nodes is not None, message=trouble, nodes=nodes)
        self.noted, self.noted_at = seen, self.clock()
