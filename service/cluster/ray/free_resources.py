"""What is free on the nodes, from Ray's tables: less what our gangs hold, and what somebody else's work does."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from service.cluster.base import Need, Node
from service.cluster.gpus import left_of
from service.cluster.packing import pack

OTHERS_SECONDS = 2.0  # what Ray has not free, and we do not hold, is somebody else's if it stays so for so long

Held = dict[str, tuple[float, float]]  # node id -> CPUs and GPUs


def fits(gangs: Iterable[Need], nodes: tuple[Node, ...], *, on_one: Iterable[Need] = ()) -> bool:
    """Whether all of these gangs fit at once, and each of those `on_one` on a single node."""
    for need, whole in [*((need, True) for need in on_one), *((need, False) for need in gangs)]:
        left = pack(need, nodes, on_one=whole)
        if left is None:
            return False
        nodes = left
    return True


@dataclass
class ForeignUsage:
    """What work that is not ours holds on each node. Ray's tables lag behind one another by a moment, so nothing is
    taken for somebody else's that is gone at one of the looks of a while.
    """

    held: Held = field(default_factory=dict)
    least: Held | None = None  # at all looks since `since`
    since: float = 0.0

    def look(self, seen: Held, now: float) -> None:
        """Take in what is missing now: less counts at once, more when it has stayed."""
        if self.least is None:
            self.least, self.since = seen, now
            return
        self.held, self.least = _lesser(self.held, seen), _lesser(self.least, seen)
        if now - self.since >= OTHERS_SECONDS:
            self.held, self.least, self.since = self.least, seen, now


def _lesser(one: Held, other: Held) -> Held:
    return {
        node_id: (min(one[node_id][0], other[node_id][0]), min(one[node_id][1], other[node_id][1]))
        for node_id in one.keys() & other.keys()
    }


def foreign_usage(nodes: Iterable[Node], available: Mapping[str, Mapping[str, float]]) -> Held:
    """How much less Ray has free on each node than we think."""
    return {
        node.id: (
            max(0.0, node.free_cpus - available[node.id].get("CPU", 0.0)),
            max(0.0, node.free_gpus - available[node.id].get("GPU", 0.0)),
        )
        for node in nodes
        if node.id in available
    }


def free_nodes(
    nodes: Iterable[Mapping[str, Any]], groups: Iterable[Mapping[str, Any]], others: Held | None = None
) -> tuple[Node, ...]:
    """The nodes, less what these placement groups, and others, hold on each."""
    cpus_held: dict[str, float] = defaultdict(float)
    gpus_held: dict[str, list[float]] = defaultdict(list)
    for node_id, (cpus, gpus) in (others or {}).items():
        cpus_held[node_id] = cpus
        whole, part = divmod(gpus, 1.0)
        gpus_held[node_id] = [1.0] * int(whole) + [part]
    for group in groups:
        if group["state"] == "REMOVED":
            continue
        for index, node_id in group["bundles_to_node_id"].items():
            bundle = group["bundles"][index]
            cpus_held[node_id] += bundle.get("CPU", 0)
            gpus_held[node_id].append(bundle.get("GPU", 0.0))
    free = []
    for node in nodes:
        name, cpus, gpus = node["NodeID"], node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0)
        left = left_of(gpus, gpus_held[name])
        free.append(Node(name, cpus, gpus, max(0.0, cpus - cpus_held[name]), left.total, left.shared))
    return tuple(free)
