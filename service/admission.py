"""Who goes next: pure functions from the queue and the free resources to what is started now.

The larger priority first, then first come. A gang starts only when all of it fits, and nothing passes one that waits
for room; what can never fit this cluster does not hold up the others, and is told why.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from service.gang import Node


@dataclass(frozen=True)
class Need:
    """What a gang occupies: `workers` equal bundles, each on one node."""

    workers: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.workers} × ({self.cpus:g} CPU{gpus})"


@dataclass(frozen=True)
class Waiting:
    """One experiment in the queue; the queue is given in order."""

    id: str
    need: Need


@dataclass(frozen=True)
class Choice:
    """What to start now, and what can never start, with the reason."""

    start: tuple[str, ...]
    never: dict[str, str]


def choose(queue: Iterable[Waiting], nodes: Sequence[Node]) -> Choice:
    """The experiments that start now, in order."""
    start: list[str] = []
    never: dict[str, str] = {}
    free: Sequence[Node] = nodes
    for waiting in queue:
        if capacity(nodes, waiting.need) < waiting.need.workers:
            never[waiting.id] = _why_never(waiting.need, nodes)
            continue
        left = place(waiting.need, free)
        if left is None:
            break
        free = left
        start.append(waiting.id)
    return Choice(tuple(start), never)


def place(need: Need, nodes: Sequence[Node]) -> tuple[Node, ...] | None:
    """The nodes after the gang has taken its share, the fullest first as PACK does; None where it does not fit."""
    left, open_bundles = list(nodes), need.workers
    for index, node in sorted(enumerate(nodes), key=lambda item: (item[1].free_gpus, item[1].free_cpus)):
        take = min(open_bundles, _bundles(need, node.free_cpus, node.free_gpus))
        open_bundles -= take
        left[index] = replace(
            node, free_cpus=node.free_cpus - take * need.cpus, free_gpus=node.free_gpus - take * need.gpus
        )
    return None if open_bundles else tuple(left)


def capacity(nodes: Sequence[Node], need: Need) -> int:
    """How many of the gang's bundles the cluster could hold were it empty."""
    return sum(_bundles(need, node.cpus, node.gpus) for node in nodes)


def _bundles(need: Need, cpus: float, gpus: float) -> int:
    by_cpu = int(cpus // need.cpus) if need.cpus else need.workers
    by_gpu = int(gpus // need.gpus) if need.gpus else need.workers
    return max(0, min(by_cpu, by_gpu))


def _why_never(need: Need, nodes: Sequence[Node]) -> str:
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    return (
        f"needs {need}, and this cluster of {len(nodes)} node{'s' * (len(nodes) != 1)} with {cpus:g} CPU and {gpus:g} "
        f"GPU in all has room for {capacity(nodes, need)}; it starts when the cluster has grown"
    )
