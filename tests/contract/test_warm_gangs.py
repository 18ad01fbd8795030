"""Warm gangs on a real Ray head: the bits that they give, when they are kept, and whose they are after a restart."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from service.cluster.base import GangKey, Launch
from service.cluster.ray.cluster import RayCluster
from service.database.engine import Database
from service.dispatcher.dispatcher import Dispatcher
from service.domain.states import Liveness, State
from service.experiments.store import ExperimentStore
from service.settings import Settings
from tests.support.journals import MLFLOW_AWAY, logged
from tests.support.ray_head import RAY_ENVIRONMENT, RayHead, nodes_seen, ray_head
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.protocol.outcome import read_outcome
from workers.protocol.storage import ExperimentFolder
from workers.runtime.memory_check import GPU_LEFT_BYTES, HOST_GROWTH_BYTES

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]
FOR_EVER = 1e6  # seconds
PATIENCE_SECONDS = 120.0
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ON_ONE_GPU = {"workers": 1, "gpus_per_worker": 1}
LONG = {"epochs": 2000, "global_batch_size": 128}


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    """Two CPUs, the GPUs there are, and workers who do not wait for an MLflow that is away."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CBAM_TRACKING_CLOSE_SECONDS", "0")
        patch.setenv("OMP_NUM_THREADS", "1")
        with ray_head(cpus=2, gpus=torch.cuda.device_count()) as head:
            patch.undo()
            yield head


@pytest.fixture
def settings(head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in RAY_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    return Settings(home=tmp_path, ray_address=head.address)


@dataclass
class Lab:
    """A cluster that runs one experiment after another to its end."""

    cluster: RayCluster
    head: RayHead

    def start(self, name: str, storage: Path, **changes: object) -> Launch:
        chosen = spec(**changes)
        launch = Launch(
            key=GangKey(name, 1),
            token=f"token-{name}",
            spec=chosen,
            workers=chosen.world_sizes[0],
            storage=storage,
            tracking_uri=MLFLOW_AWAY,
        )
        self.cluster.start(launch)
        return launch

    def wait_for_step(self, launch: Launch) -> None:
        def moves() -> bool:
            view = self.cluster.observe().gangs[launch.key]
            return view.liveness is Liveness.ALIVE and view.progress.step > 0

        wait_until(moves, f"a step of {launch.key}", seconds=PATIENCE_SECONDS)

    def finish(self, launch: Launch, *, linger: bool = True) -> set[int]:
        """Wait for its success, and let the gang go; gives the processes that it ran in."""
        folder = ExperimentFolder(launch.storage, launch.key.experiment_id).attempt(1)
        record = wait_until(lambda: read_outcome(folder), f"the end of {launch.key}", seconds=PATIENCE_SECONDS)
        assert record.outcome == "succeeded", record.message
        pids = self.pids()
        self.cluster.release(launch.key, linger=linger)
        wait_until(lambda: launch.key not in self.cluster.observe().gangs, "the gang to be free")
        return pids

    def pids(self) -> set[int]:
        return {worker.pid for worker in self.head.workers()}


@pytest.fixture
def connect(settings: Settings) -> Iterator[Callable[[], RayCluster]]:
    """Makes clusters; those that a test did not get to close end with it."""
    clusters: list[RayCluster] = []

    def another() -> RayCluster:
        clusters.append(RayCluster(settings))
        return clusters[-1]

    yield another
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def lab(connect: Callable[[], RayCluster], head: RayHead) -> Iterator[Lab]:
    cluster = connect()
    cluster.lead(FOR_EVER)
    wait_until(lambda: nodes_seen(cluster), "a connection to Ray")
    yield Lab(cluster, head)
    empty(cluster)


def empty(cluster: RayCluster) -> None:
    """Have no gang left, not even one that lingers."""
    cluster.linger_seconds = 0.0
    for key in cluster.observe().gangs:
        cluster.release(key)
    wait_until(lambda: not cluster.gangs, "every gang to be gone")


def of_its_own(resources: dict[str, int]) -> dict[str, Any]:
    """An experiment with all that is drawn at random."""
    return {
        "model": {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}},
        "data": {"dataset": "digits", "image_size": 8, "augment": {"crop_padding": 1, "mixup": 0.2, "cutmix": 1.0}},
        "train": {"epochs": 2, "global_batch_size": 252, "deterministic": True, "ema": {"decay": 0.9}},
        "resources": resources,
    }


def quite_different(resources: dict[str, int]) -> dict[str, Any]:
    """What leaves another network, seed, precision and optimiser behind, and a run that need not repeat itself."""
    return {
        "model": {"backbone": "cifar_resnet20", "attention": {"type": "bam"}},
        "train": {
            "epochs": 1,
            "global_batch_size": 126,
            "seed": 7,
            "precision": "bf16",
            "deterministic": False,
            "optimizer": {"type": "adamw", "lr": 0.001},
        },
        "resources": resources,
    }


@pytest.mark.parametrize(
    "resources",
    [
        pytest.param({"workers": 1}, id="one"),
        pytest.param({"workers": 2}, marks=pytest.mark.slow, id="two"),
        pytest.param(ON_ONE_GPU, marks=GPU, id="one-on-gpu"),
    ],
)
def test_an_experiment_run_warm_gives_the_bits_of_one_run_cold(lab: Lab, tmp_path: Path, resources: dict[str, int]):
    others = lab.finish(lab.start("other", tmp_path / "warm", **quite_different(resources)))
    warm = lab.start("same", tmp_path / "warm", **of_its_own(resources))
    assert lab.finish(warm, linger=False) == others, "the very same processes"
    cold = lab.start("same", tmp_path / "cold", **of_its_own(resources))
    assert not lab.finish(cold) & others, "new processes"

    first, second = (ExperimentFolder(launch.storage, "same") for launch in (warm, cold))
    ours, theirs = load_file(first.weights), load_file(second.weights)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert logged(first) == logged(second)
    assert {"train/loss", "val/loss", "val/top1"} <= {name for name, _ in logged(first)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resources", "device", "kept_bytes", "stays"),
    [
        pytest.param({"workers": 1}, "cpu", HOST_GROWTH_BYTES // 5, True, id="a-little"),
        pytest.param({"workers": 1}, "cpu", HOST_GROWTH_BYTES * 3 // 2, False, id="a-leak"),
        pytest.param(ON_ONE_GPU, "cuda", 0, True, marks=GPU, id="nothing-on-gpu"),
        pytest.param(ON_ONE_GPU, "cuda", 2 * GPU_LEFT_BYTES, False, marks=GPU, id="a-leak-on-gpu"),
    ],
)
def test_a_worker_that_keeps_too_much_memory_gets_no_further_attempt(
    lab: Lab,
    tmp_path: Path,
    resources: dict[str, int],
    device: str,
    kept_bytes: int,
    stays: bool,
):
    """It is given that memory while it trains, and holds on to it. What allocators keep is no leak."""
    import ray

    def hold(worker: Any) -> None:
        worker.held = torch.ones(kept_bytes, dtype=torch.uint8, device=device)

    workers = lab.finish(lab.start("first", tmp_path, resources=resources))
    leaks = lab.start("leaks", tmp_path, train=LONG | {"epochs": 10}, resources=resources)
    lab.wait_for_step(leaks)
    assert lab.pids() == workers
    ray.get(ray.get_actor("first-1-r0", namespace=lab.cluster.namespace).__ray_call__.remote(hold))
    assert lab.finish(leaks) == workers, "a leak does not harm the attempt itself"
    assert (lab.finish(lab.start("next", tmp_path, resources=resources)) == workers) is stays
    assert (lab.pids() >= workers) is stays


@pytest.mark.slow
def test_workers_that_were_started_before_an_upgrade_are_polled(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ray ends the process of an actor that is asked in a concurrency group which it was made without."""
    monkeypatch.setattr("service.cluster.ray.gang.THREADS", {})
    launch = lab.start("earlier", tmp_path, train=LONG | {"epochs": 10})
    lab.wait_for_step(launch)
    (rank,) = lab.cluster.gangs["earlier-1"].ranks
    assert not rank.tells_news
    assert lab.finish(launch) == lab.finish(lab.start("next", tmp_path)), "it lives, and takes the next attempt"


@pytest.mark.slow
def test_a_silent_warm_gang_is_found_again_by_the_name_that_another_attempt_gave_it(
    settings: Settings, head: RayHead, connect: Callable[[], RayCluster], monkeypatch: pytest.MonkeyPatch
):
    """By its name alone it would be taken for the gang of an attempt that ended long ago, and be killed."""
    for module in ("gang", "worker"):
        monkeypatch.setattr(f"service.cluster.ray.{module}.SILENT_SECONDS", 2.0)
    database = Database(settings.database_url)
    database.migrate()
    store = ExperimentStore(database)
    first = Dispatcher(database, connect(), settings)
    ended, _ = store.submit(spec())
    tick_until(first, lambda: store.get(ended.id).state == State.SUCCEEDED, "the first experiment's success")
    runs, _ = store.submit(spec(train=LONG))
    tick_until(first, lambda: store.get(runs.id).progress.get("step", 0) > 3, "steps of the second on the same gang")
    assert [attempt.gang for attempt in store.attempts(runs.id)] == [f"{ended.id}-1"]
    (worker,) = head.workers()
    worker.suspend()
    first.leadership.release()
    first.cluster.close()

    cluster = connect()
    second = Dispatcher(database, cluster, settings)
    key = GangKey(runs.id, 1)
    tick_until(second, lambda: nodes_seen(cluster), "the gang to be taken for what the rows say")
    assert {seen: view.liveness for seen, view in cluster.observe().gangs.items()} == {key: Liveness.UNKNOWN}
    waits, _ = store.submit(spec())
    tick_until(second, lambda: bool(store.attempts(waits.id)), "another of the same shape to be claimed")
    assert [attempt.gang for attempt in store.attempts(waits.id)] == [f"{waits.id}-1"], "not the one that is silent"
    at_step = store.get(runs.id).progress["step"]
    worker.resume()
    tick_until(second, lambda: store.get(runs.id).progress["step"] > at_step, "further steps of the very same attempt")
    assert [(attempt.number, attempt.ended_at) for attempt in store.attempts(runs.id)] == [(1, None)]
    assert worker in head.workers()
    empty(cluster)
    second.leadership.release()
    database.close()


def tick_until(dispatcher: Dispatcher, condition: Callable[[], bool], what: str) -> None:
    def reached() -> bool:
        dispatcher.tick()
        return condition()

    wait_until(reached, what, seconds=PATIENCE_SECONDS)
