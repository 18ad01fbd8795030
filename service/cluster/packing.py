"""Which nodes hold how many workers: pure arithmetic of CPUs and parts of GPUs."""

from collections.abc import Sequence
from dataclasses import replace

from service.cluster.base import Need, Node
from service.cluster.gpus import ROUNDING, FreeGpus


def pack(need: Need, nodes: Sequence[Node], *, on_one: bool = False) -> tuple[Node, ...] | None:
    """The nodes after the gang has taken its share; None where it does not fit.

    All of it on the fullest node that can hold it; where none can, over several, the fullest first, unless it has to be
    `on_one`.
    """
    left, open_bundles = list(nodes), need.workers
    fullest_first = sorted(enumerate(nodes), key=lambda item: (item[1].free_gpus, item[1].free_cpus))
    whole = [item for item in fullest_first if _free_bundles(need, item[1]) >= need.workers]
    for index, node in whole[:1] if whole or on_one else fullest_first:
        take = min(open_bundles, _free_bundles(need, node))
        if not take:
            continue
        open_bundles -= take
        left[index] = replace(node, free_cpus=node.free_cpus - take * need.cpus)
        if need.gpus:
            left[index] = with_gpus(left[index], gpus_of(node).less(need.gpus, take))
    return None if open_bundles else tuple(left)


def capacity(nodes: Sequence[Node], need: Need) -> int:
    """How many of the gang's bundles the cluster could hold were it empty."""
    return sum(_bundles(need, node.cpus, node.gpus) for node in nodes)


def _free_bundles(need: Need, node: Node) -> int:
    return _bundles(need, node.free_cpus, node.free_gpus, node.shared)


def gpus_of(node: Node) -> FreeGpus:
    """What is free of the GPUs of a node."""
    return FreeGpus.of(node.free_gpus, node.shared)


def with_gpus(node: Node, gpus: FreeGpus) -> Node:
    """The node with so much free of its GPUs."""
    return replace(node, free_gpus=gpus.total, shared=gpus.shared)


def _bundles(need: Need, cpus: float, gpus: float, shared: Sequence[float] = ()) -> int:
    by_cpu = int(cpus / need.cpus + ROUNDING) if need.cpus else need.workers
    by_gpu = FreeGpus.of(gpus, shared).bundles(need.gpus) if need.gpus else need.workers
    return max(0, min(by_cpu, by_gpu))
