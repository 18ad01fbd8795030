"""Gangs on GPUs: small trials share one, and who goes leaves nothing there.

Ray also counts GPUs that do not exist, so its part can be tried anywhere; a training on one needs a GPU.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from service.cluster.base import GangKey, Launch
from service.cluster.packing import pack
from service.cluster.ray.cluster import RayCluster
from service.settings import Settings
from tests.support.ray_head import RAY_ENVIRONMENT, nodes_seen, ray_head
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.protocol.outcome import Outcome, read_outcome
from workers.protocol.storage import ExperimentFolder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
HALF = {"workers": 1, "gpus_per_worker": 0.5}
ALL = {"workers": 1, "gpus_per_worker": 1}
PATIENCE_SECONDS = 120.0


@pytest.fixture
def gpus() -> int:
    """How many there are."""
    return 1


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: int) -> Iterator[RayCluster]:
    """Three CPUs, and GPUs which may be none."""
    for name, value in RAY_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with ray_head(cpus=3, gpus=gpus) as head:
        cluster = RayCluster(Settings(home=tmp_path, ray_address=head.address))
        cluster.lead(seconds=600)
        wait_until(lambda: nodes_seen(cluster), "a connection to Ray")
        yield cluster
        cluster.close()


def launch(name: str, storage: Path, *, epochs: int = 1, **resources: float) -> Launch:
    chosen = spec(resources=resources or HALF, train={"epochs": epochs, "global_batch_size": 128})
    return Launch(key=GangKey(name, 1), token=name, spec=chosen, workers=1, storage=storage, tracking_uri=None)


def outcome_of(launch: Launch) -> Outcome | None:
    return read_outcome(ExperimentFolder(launch.storage, launch.key.experiment_id).attempt(1))


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


@pytest.mark.parametrize("gpus", [2])
def test_what_is_left_of_two_gpus_is_no_room_for_more_than_half_of_one(cluster: RayCluster, tmp_path: Path):
    """We count as Ray does: 0.8 of a GPU are free, and nobody who needs 0.6 can have them."""
    first, second, third = (launch(name, tmp_path, gpus_per_worker=0.6) for name in ("first", "second", "third"))
    for one in (first, second):
        cluster.start(one)
    wait_until(lambda: all(cluster.observe().gangs[one.key].placed for one in (first, second)), "both to have places")
    assert {tuple(gpus_of(cluster, one.key)) for one in (first, second)} == {("0",), ("1",)}
    (node,) = cluster.observe().nodes
    assert (node.free_cpus, node.shared) == (1.0, pytest.approx((0.4, 0.4)))
    assert pack(third.need, [node]) is None
    cluster.start(third)
    wait_until(lambda: cluster.groups.get(str(third.key)), "its reservation")
    assert cluster.groups[str(third.key)]["state"] == "PENDING"
    cluster.release(first.key)
    wait_until(lambda: cluster.observe().gangs[third.key].placed, "the third to have the place of the first")


@GPU
def test_two_trainings_share_a_gpu_and_both_succeed(cluster: RayCluster, tmp_path: Path):
    halves = [launch(name, tmp_path, epochs=60) for name in ("one", "other")]
    for half in halves:
        cluster.start(half)

    def steps() -> list[int]:
        seen = cluster.observe().gangs
        return [seen[half.key].progress.step for half in halves]

    wait_until(lambda: all(steps()), "steps of both", seconds=PATIENCE_SECONDS)
    assert not any(outcome_of(half) for half in halves), "they train at the same time"
    for half in halves:
        record = wait_until(lambda half=half: outcome_of(half), f"the end of {half.key}", seconds=PATIENCE_SECONDS)
        assert record.outcome == "succeeded", record.message
        assert 0 < record.summary["peak_memory_bytes"] < 2**30, "of this training's tensors on the GPU"


@GPU
def test_a_training_that_is_killed_leaves_nothing_on_its_gpu(cluster: RayCluster, tmp_path: Path):
    def free_bytes() -> int:
        return torch.cuda.mem_get_info(0)[0]

    before = free_bytes()
    training = launch("endless", tmp_path, epochs=100_000, **ALL)
    cluster.start(training)
    wait_until(
        lambda: cluster.observe().gangs[training.key].progress.step > 0, "its first step", seconds=PATIENCE_SECONDS
    )
    assert before - free_bytes() > 100 * 2**20, "at least CUDA's context"
    cluster.release(training.key)
    wait_until(lambda: training.key not in cluster.observe().gangs, "the gang to be gone")
    wait_until(lambda: before - free_bytes() < 16 * 2**20, "the GPU's memory to be free")
