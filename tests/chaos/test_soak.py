"""Many short experiments while parts are killed at random: nothing is lost, nothing is left."""

import os
import random
import signal
import time

import pytest

from service.domain.states import TERMINAL, State
from tests.chaos.lab import PATIENCE_SECONDS, ChaosLab, let_pass
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack]
FEW, MANY = 4, int(os.environ.get("CBAM_CHAOS_SOAK", "200"))
VICTIMS = ("worker", "worker", "worker", "dispatcher", "api", "mlflow")
SHORT = {"epochs": 1, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
LOOK_SECONDS = 0.25


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(FEW, marks=pytest.mark.timeout(600)),
        pytest.param(MANY, marks=[pytest.mark.chaos, pytest.mark.timeout(7200)]),
    ],
)
def test_of_many_experiments_none_is_lost(lab: ChaosLab, chance: random.Random, count: int):
    experiments = [lab.submit(train=SHORT, name=f"soak-{index}") for index in range(count)]
    victims = VICTIMS if count < MANY else (*VICTIMS, "head")
    kills = dict.fromkeys(victims, 0)
    next_kill = time.monotonic()
    deadline = time.monotonic() + PATIENCE_SECONDS + 30 * count

    def all_ended() -> bool:
        nonlocal next_kill
        if time.monotonic() > next_kill and sum(kills.values()) < max(2, count // 5):
            victim = chance.choice(victims)
            kills[victim] += bool(lab.signal(victim, signal.SIGKILL))
            lab.recover()
            next_kill = time.monotonic() + chance.uniform(1, 10)
        let_pass(LOOK_SECONDS)
        return all(one.state in TERMINAL or lab.is_there(one) in TERMINAL for one in experiments)

    wait_until(all_ended, f"{count} experiments to end", seconds=deadline - time.monotonic())
    print(f"{count} experiments, killed: {kills}")
    assert {one.state for one in experiments} == {State.SUCCEEDED}
    for experiment in experiments:
        lab.assert_sound(experiment, epochs=1)
    lab.assert_nothing_is_left()
