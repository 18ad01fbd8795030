"""Many short experiments while parts are killed at random: nothing is lost, nothing is left."""

import os
import signal
import time

import pytest

from service.states import TERMINAL, State
from tests.chaos.conftest import LONG
from tests.chaos.lab import PATIENCE_SECONDS, ChaosLab, seeded
from tests.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.chaos, pytest.mark.timeout(7200 if LONG else 600)]
COUNT = int(os.environ.get("CBAM_CHAOS_SOAK", "200" if LONG else "6"))
VICTIMS = ("worker", "worker", "dispatcher", "api", "mlflow")
SHORT = {"epochs": 1, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}


def test_of_many_experiments_none_is_lost(lab: ChaosLab):
    chance = seeded()
    experiments = [lab.submit(train=SHORT, name=f"soak-{index}") for index in range(COUNT)]
    kills = dict.fromkeys(VICTIMS, 0)
    next_kill = time.monotonic()
    deadline = time.monotonic() + PATIENCE_SECONDS + 30 * COUNT

    def all_ended() -> bool:
        nonlocal next_kill
        assert time.monotonic() < deadline, (
            f"still not ended: {[one.id for one in experiments if one.state not in TERMINAL]}"
        )
        if time.monotonic() > next_kill and sum(kills.values()) < max(3, COUNT // 5):
            victim = chance.choice(VICTIMS)
            kills[victim] += bool(lab.signal(victim, signal.SIGKILL))
            lab.recover()
            next_kill = time.monotonic() + chance.uniform(1, 10)
        return all(one.state in TERMINAL or lab.is_there(one) in TERMINAL for one in experiments)

    wait_until(all_ended, f"{COUNT} experiments to end", seconds=deadline - time.monotonic())
    print(f"{COUNT} experiments, killed: {kills}")
    assert {one.state for one in experiments} == {State.SUCCEEDED}
    for experiment in experiments:
        lab.assert_sound(experiment, epochs=1)
    lab.assert_nothing_is_left()
