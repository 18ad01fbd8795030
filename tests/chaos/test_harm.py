"""Every part is killed, or stopped for a while, in every phase of an experiment: it ends right all the same.

`scripts/chaos quick` takes one phase for every part, so that every part and every phase has its turn; without `quick`
all of them are tried.
"""

import signal

import pytest

from service.states import State
from tests.chaos.conftest import LONG
from tests.chaos.lab import PARTS, PHASES, ChaosLab
from tests.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.chaos, pytest.mark.timeout(600)]
QUICK = [("dispatcher", "STARTING"), ("worker", "CHECKPOINT"), ("api", "PAUSING"), ("mlflow", "RUNNING")]
ALL = [(part, phase) for part in PARTS for phase in PHASES if (part, phase) != ("worker", "QUEUED")]
STOPPED_SECONDS = 5.0


@pytest.mark.parametrize(("part", "phase"), ALL if LONG else QUICK)
def test_a_part_is_killed(lab: ChaosLab, part: str, phase: str):
    experiment = lab.submit()
    lab.reach(experiment, phase)
    assert lab.signal(part, signal.SIGKILL) or phase == "STARTING", f"there is no {part} to kill"
    lab.recover()
    ended = lab.finish(experiment)
    assert ended in ({State.CANCELLED, State.SUCCEEDED} if phase == "CANCELLING" else {State.SUCCEEDED})
    lab.assert_sound(experiment)


@pytest.mark.parametrize("part", ["dispatcher", "worker", "raylet", "head", "mlflow"] if LONG else ["dispatcher"])
def test_a_part_that_is_stopped_for_a_while_costs_no_attempt(lab: ChaosLab, part: str):
    experiment = lab.submit()
    lab.reach(experiment, "RUNNING")
    lab.signal(part, signal.SIGSTOP)
    with pytest.raises(AssertionError, match="waited"):
        wait_until(lambda: False, "time to pass", seconds=STOPPED_SECONDS)
    lab.recover()
    assert lab.finish(experiment) is State.SUCCEEDED
    assert len(lab.client.attempts(experiment.id)) == 1
    lab.assert_sound(experiment)


def test_a_cancel_in_the_midst_of_a_dispatchers_death_still_frees_everything(lab: ChaosLab):
    endless = {"epochs": 1000, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    experiment = lab.submit(train=endless)
    lab.reach(experiment, "CANCELLING")
    lab.signal("dispatcher", signal.SIGKILL)
    lab.recover()
    assert lab.finish(experiment) is State.CANCELLED
    lab.assert_sound(experiment, epochs=1000)
    lab.assert_nothing_is_left()
