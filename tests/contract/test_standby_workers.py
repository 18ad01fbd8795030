"""Workers on standby, on a real Ray head: the first attempt finds one, and none stands in anybody's way."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.util import placement_group, placement_group_table
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from service.cluster.base import GangKey, Launch
from service.cluster.ray.cluster import RayCluster
from service.settings import Settings
from tests.support.journals import MLFLOW_AWAY
from tests.support.ray_head import RAY_ENVIRONMENT, RayHead, ray_head
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.actor import TrainWorker
from workers.protocol.outcome import read_outcome
from workers.protocol.storage import ExperimentFolder

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
SECONDS = 120.0


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    """Two CPUs, and workers who do not wait for an MLflow that is away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBAM_TRACKING_CLOSE_SECONDS", "0")
        with ray_head(cpus=2) as head:
            patch.undo()
            yield head


@pytest.fixture
def connect(head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], RayCluster]]:
    """Makes clusters that may act, with one worker on standby, where nobody lingers; the last one leaves nothing."""
    for name, value in RAY_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    settings = Settings(home=tmp_path, ray_address=head.address, standby_workers=1, linger_seconds=2.0)
    clusters: list[RayCluster] = []

    def another() -> RayCluster:
        cluster = RayCluster(settings)
        cluster.lead(1e6)
        cluster.ask_for(())
        clusters.append(cluster)
        return cluster

    yield another
    last = clusters[-1]
    last.standby.workers, last.linger_seconds = 0, 0.0
    wait_until(lambda: not last.gangs, "every gang to be gone", seconds=SECONDS)
    for cluster in clusters:
        cluster.close()


def the_idle(cluster: RayCluster) -> set[str]:
    return {gang.name for gang in list(cluster.gangs.values()) if gang.idle and gang.ranks and gang.ranks[0].answered}


def stands_by(cluster: RayCluster, head: RayHead) -> int:
    """The process that waits for an attempt."""
    wait_until(lambda: len(the_idle(cluster)) == len(cluster.gangs) == 1, "a worker on standby", seconds=SECONDS)
    (worker,) = wait_until(head.workers, "its process", seconds=SECONDS)
    return worker.pid


def train(cluster: RayCluster, name: str, storage: Path, **changes: object) -> tuple[Launch, set[str]]:
    """Run one experiment to its end, and let its gang linger; gives the gangs that were there meanwhile."""
    chosen = spec(**changes)
    launch = Launch(
        key=GangKey(name, 1),
        token=f"token-{name}",
        spec=chosen,
        workers=chosen.world_sizes[0],
        storage=storage,
        tracking_uri=MLFLOW_AWAY,
    )
    cluster.start(launch)
    folder = ExperimentFolder(storage, name).attempt(1)
    record = wait_until(lambda: read_outcome(folder), f"the end of {name}", seconds=SECONDS)
    assert record.outcome == "succeeded", record.message
    names = set(cluster.gangs)
    cluster.release(launch.key, linger=True)
    return launch, names


def test_the_first_attempt_trains_where_one_stood_by_which_stands_by_again(
    connect: Callable[[], RayCluster], head: RayHead, tmp_path: Path
):
    cluster = connect()
    pid = stands_by(cluster, head)
    (name,) = the_idle(cluster)
    _, names = train(cluster, "first", tmp_path)
    assert name in names
    wait_until(lambda: cluster.gangs[name].idle_for(time.monotonic()) > 4, "longer than it would linger")
    assert (stands_by(cluster, head), the_idle(cluster)) == (pid, {name})


@pytest.mark.slow
def test_one_goes_for_a_gang_that_needs_its_room_and_another_one_comes_after_it(
    connect: Callable[[], RayCluster], head: RayHead, tmp_path: Path
):
    cluster = connect()
    pid = stands_by(cluster, head)
    launch, _ = train(cluster, "large", tmp_path, resources={"workers": 2})
    wait_until(lambda: str(launch.key) not in cluster.gangs, "who lingers to go", seconds=SECONDS)
    assert stands_by(cluster, head) != pid


def test_one_that_dies_is_not_replaced_at_once(connect: Callable[[], RayCluster], head: RayHead):
    cluster = connect()
    psutil.Process(stands_by(cluster, head)).kill()
    wait_until(lambda: not cluster.gangs, "it to be gone", seconds=SECONDS)
    cluster._stand_by()
    assert not cluster.gangs
    cluster.standby.not_before = 0.0
    stands_by(cluster, head)


@pytest.mark.slow
def test_a_later_dispatcher_takes_one_that_runs_its_own_code(
    connect: Callable[[], RayCluster], head: RayHead, tmp_path: Path
):
    first = connect()
    pid = stands_by(first, head)
    (name,) = the_idle(first)
    first.close()
    later = connect()
    assert (stands_by(later, head), the_idle(later)) == (pid, {name})
    train(later, "next", tmp_path)
    assert [gang.ranks[0].key for gang in later.gangs.values() if gang.name == name] == [GangKey("next", 1)]


@pytest.mark.slow
def test_after_an_upgrade_one_that_was_left_gets_no_attempt_and_is_replaced(
    connect: Callable[[], RayCluster], head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = connect()
    old = stands_by(first, head)
    first.close()
    monkeypatch.setattr("service.cluster.ray.gang.code_fingerprint", lambda: "what was installed since")
    later = connect()
    train(later, "upgraded", tmp_path)
    assert old not in {worker.pid for worker in head.workers()}
    assert stands_by(later, head) != old


@pytest.mark.slow
def test_one_that_nobody_asks_any_more_frees_its_place(head: RayHead, monkeypatch: pytest.MonkeyPatch):
    """Its dispatcher may be gone for good, and nobody else would ever look for it."""
    for name, value in RAY_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    ray.init(address=head.address, namespace="forgotten", log_to_driver=False)
    group = placement_group([{"CPU": 1.0}], lifetime="detached", name="forgotten")
    place = PlacementGroupSchedulingStrategy(group)
    options = ray.remote(TrainWorker).options(lifetime="detached", name="r0", num_cpus=1, scheduling_strategy=place)
    worker = options.remote(patience_seconds=1.0)
    pid = ray.get(worker.poll.remote())["pid"]
    wait_until(lambda: not psutil.pid_exists(pid), "it to go", seconds=SECONDS)
    wait_until(lambda: placement_group_table(group)["state"] == "REMOVED", "its place to be free", seconds=SECONDS)
    ray.shutdown()
