"""Workers that are ready before an experiment comes: a gang without an attempt, which idles from its beginning on.

It is kept while there is room for it, and taken, like any idle gang, by the next attempt of its shape: the first one
starts as warm as the others. What idles counts as free, so it never stands in the way of a gang of another shape.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from cbam_core.spec import ResourcesSpec
from service.cluster.base import Need, Node
from service.cluster.packing import pack
from service.cluster.ray.gang import RayGang

_RESOURCES = ResourcesSpec()
STANDBY_NEED = Need(1, _RESOURCES.cpus_per_worker, _RESOURCES.gpus_per_worker)  # of a spec that does not speak of it
PLACE_SECONDS = 10.0  # one that has no worker by then found no room after all
ANSWER_SECONDS = 120.0  # one whose worker has said nothing by then will not: its code comes over the network, at worst


@dataclass
class Standby:
    """How many are kept, and when another one is started."""

    workers: int
    pause_seconds: float = 60.0  # after one has died: what killed it may kill the next one
    not_before: float = 0.0

    def next(self, gangs: Iterable[RayGang], nodes: tuple[Node, ...]) -> str | None:
        """The name of one that is to be started, where one is missing and fits on `nodes`, which show what is free
        beside what `gangs` hold.
        """
        now, ready = time.monotonic(), 0
        for gang in gangs:
            patience = ANSWER_SECONDS if gang.ranks else PLACE_SECONDS
            if gang.idle and not gang.has_answered and gang.idle_for(now) > patience:
                gang.releasing = True
                self.died()
            if not (gang.ranks and gang.known):
                return None  # one is being put together, or has not said yet what it does: then the room is not known
            ready += gang.need == STANDBY_NEED and gang.lends_its_place
        if ready >= self.workers or now < self.not_before or pack(STANDBY_NEED, nodes) is None:
            return None
        return f"standby-{time.time_ns() // 1_000_000}"

    def kept(self, idle: Iterable[RayGang]) -> list[RayGang]:
        """Those of the idle gangs that go on waiting."""
        ours = [gang for gang in idle if gang.need == STANDBY_NEED]
        return sorted(ours, key=lambda gang: gang.idle_since or 0.0)[-self.workers :] if self.workers else []

    def died(self) -> None:
        """Wait before the next one is started."""
        self.not_before = time.monotonic() + self.pause_seconds
