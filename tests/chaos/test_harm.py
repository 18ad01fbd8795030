"""Every part is killed, or stopped for a while, in every phase of an experiment: it ends right all the same.

The quick part takes one phase for most parts, so that every phase has its turn; the long part tries all of them.
"""

import random
import signal

import pytest

from service.domain.states import State
from tests.chaos.lab import PARTS, PHASES, ChaosLab, let_pass

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
QUICK = {
    ("postgresql", "QUEUED"),
    ("dispatcher", "STARTING"),
    ("mlflow", "RUNNING"),
    ("worker", "CHECKPOINT"),
    ("api", "PAUSING"),
}
ALL = [
    pytest.param(part, phase, marks=() if (part, phase) in QUICK else pytest.mark.chaos)
    for part in PARTS
    for phase in PHASES
    if (part, phase) != ("worker", "QUEUED")
]
LONGEST_PAUSE_SECONDS = 1.0  # the phase is entered, and the harm comes at a moment of chance within so much
STOPPED_SECONDS = 5.0
STATES = {"CHECKPOINT": "RUNNING"}


@pytest.mark.parametrize(("part", "phase"), ALL)
def test_a_part_is_killed(lab: ChaosLab, chance: random.Random, part: str, phase: str):
    experiment = lab.submit_into(phase)
    let_pass(chance.uniform(0, LONGEST_PAUSE_SECONDS))
    assert lab.is_there(experiment).value == STATES.get(phase, phase), "the phase has passed before the harm"
    assert lab.signal(part, signal.SIGKILL) or phase == "STARTING", f"there is no {part} to kill"
    lab.recover()
    ended = lab.finish(experiment)
    assert ended in ({State.CANCELLED, State.SUCCEEDED} if phase == "CANCELLING" else {State.SUCCEEDED})
    lab.assert_sound(experiment)


@pytest.mark.chaos
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_stopped_for_a_while_costs_no_attempt(lab: ChaosLab, part: str):
    experiment = lab.submit()
    lab.reach(experiment, "RUNNING")
    lab.signal(part, signal.SIGSTOP)
    let_pass(STOPPED_SECONDS)
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
