"""Small trials share a GPU. Ray also counts GPUs that do not exist, so its part can be tried anywhere."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cluster import RayCluster
from service.errors import ClusterUnavailable
from service.gang import GangKey, Launch
from service.settings import Settings
from tests.ray_head import RAY_ENVIRONMENT, ray_head
from tests.specs import spec
from tests.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]
HALF = {"workers": 1, "gpus_per_worker": 0.5}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    """Three CPUs, and one GPU that is none."""
    for name, value in RAY_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with ray_head(cpus=3, gpus=1) as head:
        cluster = RayCluster(Settings(home=tmp_path, ray_address=head.address))
        cluster.lead(seconds=600)
        wait_until(lambda: is_there(cluster), "a connection to Ray")
        yield cluster
        cluster.close()


def is_there(cluster: RayCluster) -> bool:
    try:
        return bool(cluster.observe().nodes)
    except ClusterUnavailable:
        return False


def launch(name: str, storage: Path) -> Launch:
    key = GangKey(name, 1)
    return Launch(key=key, token=name, spec=spec(resources=HALF), workers=1, storage=storage, tracking_uri=None)


def gpus_of(cluster: RayCluster, key: GangKey) -> list[str]:
    """As its worker says."""
    import ray

    actor = ray.get_actor(f"{key}-r0", namespace=cluster.namespace)
    return ray.get(actor.place.remote())[2]


def test_two_halves_share_a_gpu_and_a_third_waits_for_one_of_them(cluster: RayCluster, tmp_path: Path):
    first, second, third = (launch(name, tmp_path / "storage") for name in ("first", "second", "third"))
    for one in (first, second):
        cluster.start(one)
    wait_until(lambda: all(cluster.observe().gangs[one.key].placed for one in (first, second)), "both to have places")
    assert [gpus_of(cluster, one.key) for one in (first, second)] == [["0"], ["0"]]
    (node,) = cluster.observe().nodes
    assert (node.gpus, node.free_gpus, node.free_cpus) == (1.0, 0.0, 1.0)

    cluster.start(third)
    wait_until(lambda: cluster.observe().gangs[first.key].progress.phase == "ended", "the first to miss its GPU")
    assert not cluster.observe().gangs[third.key].placed
    cluster.release(first.key)
    wait_until(lambda: cluster.observe().gangs[third.key].placed, "the third to have the place of the first")
