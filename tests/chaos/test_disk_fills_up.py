"""The storage fills up while two experiments train, and one of them is just writing a checkpoint.

Both fail with the reason; where there is room again, another attempt of each goes on from a whole checkpoint.
"""

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from service.database.models.experiments import Experiment
from service.domain.states import Reason, State
from tests.chaos.lab import EPOCHS
from tests.chaos.site import Site, site_on
from tests.support.mlflow_server import MlflowServer
from tests.support.ray_head import RAY_ENVIRONMENT, ray_head
from tests.support.small_disk import kept_full, small_disk
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder
from workers.tracking.run_identity import stored_run_id

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(300)]
PROJECT = "tests"  # as tests/support/specs.py has it
ROOM = "64m"  # two experiments with three checkpoints of some 2 MB each, and all else


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MlflowClient]:
    """An MLflow on another disk."""
    server = MlflowServer(tmp_path)
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    yield MlflowClient(server.uri)
    server.stop()


@pytest.fixture
def site(tracking: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for name, value in (RAY_ENVIRONMENT | {"OMP_NUM_THREADS": "1"}).items():
        monkeypatch.setenv(name, value)
    with ray_head(cpus=2) as head, site_on(head, tmp_path) as site, small_disk(site.settings.storage_root, ROOM):
        yield site


def submit(site: Site, **changes: object) -> Experiment:
    train = {"epochs": EPOCHS, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    return site.store.submit(spec(train=train, retry={"max_restarts": 1}, **changes))[0]


def checkpoints(site: Site, row: Experiment, *, whole: bool) -> list[int]:
    """The steps of its checkpoints: of the whole ones, or of those without a manifest."""
    found = ExperimentFolder(site.settings.storage_root, row.id).checkpoints.glob("step-*")
    return sorted(int(one.name[5:]) for one in found if (one / "manifest.json").exists() is whole)


def freeze_in_a_write(site: Site, row: Experiment) -> list[psutil.Process]:
    """The workers, stopped, if that was while one of them wrote a checkpoint of the row's."""
    workers = site.head.workers()
    for worker in workers:
        worker.suspend()
    if checkpoints(site, row, whole=False) and checkpoints(site, row, whole=True):
        return workers
    for worker in workers:
        worker.resume()
    return []


def assert_tracked(site: Site, tracking: MlflowClient, row: Experiment, status: str) -> None:
    """One run, with the status; every value is there once, and of a success every value."""
    folder = ExperimentFolder(site.settings.storage_root, row.id)
    run_id = wait_until(lambda: stored_run_id(folder), "the run")
    wait_until(lambda: tracking.get_run(run_id).info.status == status, f"MLflow to say {status}")
    for name, every in (("train/loss", 1), ("val/top1", row.progress["total_steps"] // EPOCHS)):
        steps = [point.step for point in tracking.get_metric_history(run_id, name)]
        assert steps == sorted(set(steps)), f"{name} was told twice"
        if status == "FINISHED":
            assert steps == list(range(every, row.progress["total_steps"] + 1, every)), f"{name} was lost"


@pytest.mark.parametrize("room", ["comes back", "stays away"])
def test_a_disk_that_fills_up(site: Site, tracking: MlflowClient, room: str):
    writing = submit(site, checkpoint={"every_steps": 1})
    beside = submit(site)
    both = (writing, beside)
    for row in both:
        site.wait_for(row.id, "its first epoch", lambda row: row.progress.get("epoch", 0) >= 1)
    workers = wait_until(lambda: freeze_in_a_write(site, writing), "a checkpoint that is being written")
    newest = checkpoints(site, writing, whole=True)[-1]
    with kept_full(site.settings.storage_root):
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
        for row in both:
            site.wait_for(row.id, "the disk to be noticed", lambda row: row.state != State.RUNNING)
        if room == "stays away":
            for row in both:
                site.wait_for(row.id, "its end", lambda row: row.state == State.FAILED)
    for row in both:
        wanted = State.SUCCEEDED if room == "comes back" else State.FAILED
        ended = site.wait_for(row.id, f"its end as {wanted}", lambda row, wanted=wanted: row.state == wanted)
        first, second = site.store.attempts(row.id)
        assert first.reason == Reason.CHECKPOINT_ERROR
        assert not checkpoints(site, row, whole=False), "a torn checkpoint is left"
        assert_tracked(site, tracking, ended, "FINISHED" if room == "comes back" else "FAILED")
        if room == "stays away":
            assert (ended.reason, second.reason) == (Reason.CHECKPOINT_ERROR, Reason.CHECKPOINT_ERROR)
            assert "No space left on device" in ended.message
        else:
            assert second.resumed_from_step >= (newest if row is writing else 1)
    after = submit(site)
    site.wait_for(after.id, "one that begins when there is room again", lambda row: row.state == State.SUCCEEDED)
