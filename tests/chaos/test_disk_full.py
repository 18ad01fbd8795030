"""The storage is full: the experiment ends with a reason that says so, and the service goes on."""

import signal

import pytest

from service.domain.states import Reason, State
from tests.chaos.lab import ChaosLab
from tests.support.small_disk import small_disk
from workers.protocol.storage import ExperimentFolder

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
TOO_SMALL = "1m"  # a checkpoint of the small network has more than 2 MB


@pytest.mark.parametrize("what", [pytest.param("checkpoints", marks=pytest.mark.chaos), "everything"])
def test_a_full_disk_ends_the_experiment_with_its_reason(lab: ChaosLab, what: str):
    lab.signal("dispatcher", signal.SIGSTOP)
    experiment = lab.submit()
    folder = ExperimentFolder(lab.stack.settings.storage_root, experiment.id)
    with small_disk(folder.checkpoints if what == "checkpoints" else folder.path, TOO_SMALL):
        lab.recover()
        assert lab.finish(experiment) is State.FAILED
        assert experiment.view.reason is Reason.CHECKPOINT_ERROR
        assert "checkpoint" in experiment.view.message
        assert len(lab.client.attempts(experiment.id)) == 1
    assert lab.finish(lab.submit()) is State.SUCCEEDED
