"""Where Ray puts a gang: on one node that has room for all of it, else over several; it never waits for one alone."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from service.cluster.base import GangKey, Launch
from service.cluster.ray.cluster import RayCluster
from service.settings import Settings
from tests.support.ray_head import RAY_ENVIRONMENT, nodes_seen, ray_head, ray_node
from tests.support.specs import spec
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
Size = dict[str, int]


@pytest.fixture
def two_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Size, Size], RayCluster]]:
    """Makes a cluster of a head and another node of these sizes."""
    for name, value in RAY_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:

        def start(first: Size, second: Size) -> RayCluster:
            address = stack.enter_context(ray_head(**first)).address
            stack.enter_context(ray_node(address, tmp_path, **second))
            cluster = RayCluster(Settings(home=tmp_path, ray_address=address))
            stack.callback(cluster.close)
            cluster.lead(seconds=600)
            wait_until(lambda: nodes_seen(cluster) == 2, "both nodes")
            return cluster

        yield start


def start(cluster: RayCluster, storage: Path, name: str, **resources: Any) -> GangKey:
    """A gang that needs not train for its place to be seen."""
    chosen = spec(resources=resources, train={"epochs": 2000, "global_batch_size": 126})
    workers = chosen.world_sizes[0]
    launch = Launch(key=GangKey(name, 1), token=name, spec=chosen, workers=workers, storage=storage, tracking_uri=None)
    cluster.start(launch)
    return launch.key


def placed(cluster: RayCluster, key: GangKey, *, seconds: float = 30.0) -> list[int]:
    """How many of its workers are on each of its nodes, once it has its place."""
    view = wait_until(lambda: cluster.observe().gangs[key].placed, f"{key} to have its place", seconds=seconds)
    return sorted(view.values())


def test_a_gang_lies_on_the_node_that_can_hold_it_alone(two_nodes: Callable[[Size, Size], RayCluster], tmp_path: Path):
    """Ray's PACK would begin on the first node, as most of its CPUs are free, and find a GPU too few."""
    cluster = two_nodes({"cpus": 12, "gpus": 2}, {"cpus": 3, "gpus": 3})
    key = start(cluster, tmp_path, "whole", workers=3, gpus_per_worker=1)
    assert placed(cluster, key) == [3]


def test_a_gang_does_not_wait_for_one_node_where_two_have_room_now(
    two_nodes: Callable[[Size, Size], RayCluster], tmp_path: Path
):
    cluster = two_nodes({"cpus": 2}, {"cpus": 1})
    start(cluster, tmp_path, "half", workers=1)
    wait_until(lambda: (2.0, 1.0) in [(node.cpus, node.free_cpus) for node in cluster.observe().nodes], "half a node")
    assert placed(cluster, start(cluster, tmp_path, "spread", workers=2)) == [1, 1]
    assert cluster.groups["spread-1"]["strategy"] == "PACK"


def test_a_gang_whose_one_node_is_taken_by_somebody_else_is_content_with_two(
    two_nodes: Callable[[Size, Size], RayCluster], tmp_path: Path
):
    """What others take is known after a moment only; within it, the gang is sent to a node that has no room for it."""
    from ray.util import placement_group

    cluster = two_nodes({"cpus": 2}, {"cpus": 1})
    stranger = placement_group([{"CPU": 1, "node:__internal_head__": 0.001}])
    assert stranger.wait(timeout_seconds=10)
    key = start(cluster, tmp_path, "late", workers=2)
    wait_until(lambda: "late-1" in cluster.groups, "its reservation")
    assert cluster.groups["late-1"]["strategy"] == "STRICT_PACK"
    assert placed(cluster, key) == [1, 1]
