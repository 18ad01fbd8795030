"""A part is away for a while, as when its machine is started anew: what runs goes on, or is taken up again."""

import signal

import pytest

from service.domain.states import State
from tests.chaos.lab import PARTS, ChaosLab, let_pass

pytestmark = [pytest.mark.stack, pytest.mark.chaos, pytest.mark.timeout(900)]
COSTS_AN_ATTEMPT = ("raylet", "head")
EPOCHS = 40


@pytest.mark.parametrize("seconds", [0, 20, 60])
@pytest.mark.parametrize("part", sorted(set(PARTS) - {"worker"}))
def test_a_part_is_away(lab: ChaosLab, part: str, seconds: int):
    train = {"epochs": EPOCHS, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    experiment = lab.submit(train=train)
    lab.reach(experiment, "RUNNING")
    assert lab.signal(part, signal.SIGKILL), f"there is no {part} to kill"
    let_pass(seconds)
    lab.recover()
    assert lab.finish(experiment) is State.SUCCEEDED
    if part not in COSTS_AN_ATTEMPT:
        assert len(lab.client.attempts(experiment.id)) == 1
    lab.assert_sound(experiment, epochs=EPOCHS)
