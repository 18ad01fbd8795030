"""Who goes next: pure functions from the queue, what runs and what is free to what is started now.

The larger priority first; among equals the owner who holds the least; then first come. A gang starts only when all of
it fits, with as many workers as fit if the spec leaves a choice. Others may pass one that waits for room, but only a
bounded number of times: then it is the first of its priority, whoever holds how much, and nothing starts before it. So
nothing starves among equals. An experiment may displace preemptible ones of lower priority. What can never fit this
cluster, or is beyond its owner's quota, holds nobody up and is told why.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from service.cluster.base import Need, Node
from service.cluster.gpus import ROUNDING
from service.cluster.packing import capacity, gpus_of, pack, with_gpus


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """One experiment in the queue."""

    id: str
    sizes: tuple[int, ...]  # the numbers of workers it may start with, largest first
    cpus: float = 1.0  # per worker
    gpus: float = 0.0
    priority: int = 0
    owner: str = ""
    queued_at: float = 0.0  # unix seconds
    passed: int = 0  # how often others went before it while it waited for room
    held_back: str = ""  # why its owner may start nothing new at present

    def need(self, workers: int) -> Need:
        """What it occupies with so many workers."""
        return Need(workers, self.cpus, self.gpus)


@dataclass(frozen=True, kw_only=True)
class Holding:
    """One experiment that holds resources."""

    id: str
    need: Need
    owner: str = ""
    priority: int = 0
    preemptible: bool = False
    yielding: bool = False  # asked to go already
    started_at: float = 0.0  # unix seconds
    placed: Mapping[str, int] = field(default_factory=dict)  # node id -> workers there


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the operator decides. A quota is what one owner may hold at once; None is no limit."""

    most_passes: int = 20
    quota_cpus: float | None = None
    quota_gpus: float | None = None


@dataclass
class Choice:
    """What to do now."""

    start: dict[str, int] = field(default_factory=dict)  # experiment -> workers, in order
    preempt: tuple[str, ...] = ()
    passed: dict[str, int] = field(default_factory=dict)  # experiment -> by how many it was passed now
    never: dict[str, str] = field(default_factory=dict)  # experiment -> why it cannot start on this cluster
    forbidden: dict[str, str] = field(default_factory=dict)  # experiment -> why it could start on no cluster
    over_quota: dict[str, str] = field(default_factory=dict)  # experiment -> what of its owner's it waits for
    waits: list[str] = field(default_factory=list)  # experiments that wait for nothing but room


def choose(
    queue: Iterable[Waiting], holding: Sequence[Holding], nodes: Sequence[Node], rules: Rules | None = None
) -> Choice:
    """Who starts now, with how many workers, and who must yield. Deterministic; `nodes` say what is free at present."""
    return _Round(holding, nodes, rules or Rules()).go(queue)


class _Round:
    """One round of admission over a copy of the world."""

    def __init__(self, holding: Sequence[Holding], nodes: Sequence[Node], rules: Rules) -> None:
        self.holding = holding
        self.nodes = nodes
        self.rules = rules
        self.all_cpus = sum(node.cpus for node in nodes)
        self.all_gpus = sum(node.gpus for node in nodes)
        self.capacities: dict[Need, int] = {}
        self.too_large: set[Need] = set()  # for what is free now; no round frees anything
        self.free = tuple(nodes)
        self.held: dict[str, tuple[float, float]] = {}
        for one in holding:
            self._charge(one.owner, one.need)
        self.blocked: list[Waiting] = []
        self.started: list[Waiting] = []
        self.choice = Choice()

    def go(self, queue: Iterable[Waiting]) -> Choice:
        left = list(queue)
        while left:
            item = min(left, key=self._rank)
            left.remove(item)
            if self._may_start(item) and not self._consider(item):
                break
        return self.choice

    def _rank(self, item: Waiting) -> tuple[float, float, float, str]:
        tired = item.passed >= self.rules.most_passes
        return (-item.priority, -1.0 if tired else self._share(item.owner), item.queued_at, item.id)

    def _share(self, owner: str) -> float:
        """The owner's dominant share of the cluster (Ghodsi et al. 2011)."""
        cpus, gpus = self._held_by(owner)
        return max(
            cpus / self.all_cpus if self.all_cpus else 0.0,
            gpus / self.all_gpus if self.all_gpus else 0.0,
        )

    def _charge(self, owner: str, need: Need) -> None:
        cpus, gpus = self._held_by(owner)
        self.held[owner] = (cpus + need.workers * need.cpus, gpus + need.workers * need.gpus)

    def _may_start(self, item: Waiting) -> bool:
        """Whether the cluster could ever hold it, and its owner's quota allows it now; says why where not."""
        smallest = item.need(item.sizes[-1])
        if not self._within_quota((0.0, 0.0), smallest):
            self.choice.forbidden[item.id] = (
                f"needs {smallest}, and one user may hold {self._quota()} at once: it can never start here"
            )
            return False
        if self._capacity(smallest) < smallest.workers:
            self.choice.never[item.id] = _why_never(smallest, self.nodes)
            return False
        if item.held_back:
            self.choice.over_quota[item.id] = item.held_back
            return False
        if not self._within_quota(self._held_by(item.owner), smallest):
            self.choice.over_quota[item.id] = f"waits for your own experiments: {self._quota()} at once for one user"
            return False
        return True

    def _capacity(self, need: Need) -> int:
        if need not in self.capacities:
            self.capacities[need] = capacity(self.nodes, need)
        return self.capacities[need]

    def _held_by(self, owner: str) -> tuple[float, float]:
        return self.held.get(owner, (0.0, 0.0))

    def _within_quota(self, held: tuple[float, float], need: Need) -> bool:
        cpus, gpus = held
        limits = (
            (cpus + need.workers * need.cpus, self.rules.quota_cpus),
            (gpus + need.workers * need.gpus, self.rules.quota_gpus),
        )
        return all(limit is None or wanted <= limit + ROUNDING for wanted, limit in limits)

    def _quota(self) -> str:
        limits = ((self.rules.quota_cpus, "CPU"), (self.rules.quota_gpus, "GPU"))
        return " and ".join(f"{limit:g} {unit}" for limit, unit in limits if limit is not None)

    def _consider(self, item: Waiting) -> bool:
        """Start it, or have it wait. False ends the round: what waits must not be passed any more."""
        passes = self.choice.passed
        if any(one.passed + passes.get(one.id, 0) >= self.rules.most_passes for one in self.blocked):
            return False
        for workers in item.sizes:
            need = item.need(workers)
            if self._within_quota(self._held_by(item.owner), need) and (left := self._place(need)) is not None:
                self.free = left
                self._charge(item.owner, need)
                self.choice.start[item.id] = workers
                self.started.append(item)
                for one in self.blocked:
                    passes[one.id] = passes.get(one.id, 0) + 1
                return True
        if ahead := sum(_came_after(one, item) for one in self.started):  # by a smaller share: a pass as any other
            passes[item.id] = ahead
        self.choice.waits.append(item.id)
        self.blocked.append(item)
        # Only the first that waits may displace others, and what it displaces is its own: nobody passes it meanwhile.
        return len(self.blocked) > 1 or not self._makes_room(item)

    def _place(self, need: Need) -> tuple[Node, ...] | None:
        left = None if need in self.too_large else pack(need, self.free)
        if left is None:
            self.too_large.add(need)
        return left

    def _makes_room(self, item: Waiting) -> bool:
        """Choose whom it displaces, if that helps; True also while those displaced before are still going."""
        need = item.need(item.sizes[-1])
        free = _after(self.free, [one for one in self.holding if one.yielding])
        if pack(need, free) is not None:
            return any(one.yielding for one in self.holding)
        weaker = [one for one in self.holding if one.preemptible and not one.yielding and one.priority < item.priority]
        victims: list[Holding] = []
        for one in sorted(weaker, key=lambda one: (one.priority, -one.started_at, one.id)):
            victims.append(one)
            if pack(need, _after(free, victims)) is not None:
                break
        else:
            return False
        for one in list(victims):  # the first chosen may have turned out not to matter
            others = [other for other in victims if other is not one]
            if pack(need, _after(free, others)) is not None:
                victims = others
        self.choice.preempt = tuple(one.id for one in victims)
        return True


def _after(nodes: Sequence[Node], going: Iterable[Holding]) -> tuple[Node, ...]:
    """The nodes once these have gone."""
    left = {node.id: node for node in nodes}
    for one in going:
        for node_id, workers in one.placed.items():
            if node_id in left:
                node, need = left[node_id], one.need
                freed = replace(node, free_cpus=node.free_cpus + workers * need.cpus)
                if need.gpus:
                    freed = with_gpus(freed, gpus_of(node).more(need.gpus, workers, of=node.gpus))
                left[node_id] = freed
    return tuple(left.values())


def _came_after(one: Waiting, other: Waiting) -> bool:
    """Whether it has waited less long, for the same priority."""
    return one.priority == other.priority and (one.queued_at, one.id) > (other.queued_at, other.id)


def _why_never(need: Need, nodes: Sequence[Node]) -> str:
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return (
        f"needs {need}, and this cluster of {len(nodes)} node{'s' * (len(nodes) != 1)} with {cpus:g} CPU and {gpus:g} "
        f"GPU in all has room for {capacity(nodes, need)}; it starts when the cluster has grown"
    )
