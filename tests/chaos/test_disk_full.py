"""The storage is full: the experiment ends with a reason that says so, and the service goes on."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.states import Reason, State
from tests.chaos.lab import ChaosLab
from workers.storage import ExperimentFolder

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
TOO_SMALL = "1m"  # a checkpoint of the small network has more than 2 MB


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of its own, far too small, in the place of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={TOO_SMALL}", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("what", [pytest.param("checkpoints", marks=pytest.mark.chaos), "everything"])
def test_a_full_disk_ends_the_experiment_with_its_reason(lab: ChaosLab, what: str):
    lab.signal("dispatcher", signal.SIGSTOP)
    experiment = lab.submit()
    folder = ExperimentFolder(lab.stack.settings.storage_root, experiment.id)
    with small_disk(folder.checkpoints if what == "checkpoints" else folder.path):
        lab.recover()
        assert lab.finish(experiment) is State.FAILED
        assert experiment.view.reason is Reason.CHECKPOINT_ERROR
        assert "checkpoint" in experiment.view.message
        assert len(lab.client.attempts(experiment.id)) == 1
    assert lab.finish(lab.submit()) is State.SUCCEEDED
