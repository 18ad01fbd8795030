"""A leader that is stopped loses the lease; another takes over; and the first, once it goes on, does no harm."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from service.database.engine import Database
from service.database.lease import current_leader
from service.domain.states import State
from service.stack.parts import environment
from tests.chaos.lab import EPOCHS, WAITS, ChaosLab
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]
LEASE_SECONDS = float(WAITS["CBAM_LEASE_SECONDS"])


@contextmanager
def another_dispatcher(lab: ChaosLab) -> Iterator[subprocess.Popen[bytes]]:
    """A second dispatcher of the same service, in a process of its own."""
    variables = environment(lab.stack.settings, lab.record, os.environ)
    command = [sys.executable, "-m", "service.dispatcher"]
    with (
        (lab.stack.settings.logs / "second-dispatcher.log").open("ab") as log,
        subprocess.Popen(command, env=variables, stdout=log, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)


def test_a_frozen_leader_is_replaced_and_does_no_harm_when_it_thaws(lab: ChaosLab):
    database = Database(lab.stack.settings.database_url)
    first = lab.submit(train={"epochs": 30, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}})
    lab.reach(first, "RUNNING")
    leader = wait_until(lambda: current_leader(database), "a leader")
    with another_dispatcher(lab) as second:
        lab.signal("dispatcher", signal.SIGSTOP)
        wait_until(lambda: f":{second.pid}" in (current_leader(database) or ""), "the second to lead")
        other = lab.submit()
        lab.reach(other, "STARTING")
        lab.signal("dispatcher", signal.SIGCONT)
        for experiment in (first, other):
            assert lab.finish(experiment) is State.SUCCEEDED
            assert len(lab.client.attempts(experiment.id)) == 1
        assert f":{second.pid}" in (current_leader(database) or ""), "who leads goes on leading"
    wait_until(lambda: current_leader(database) == leader, "the first to lead again", seconds=3 * LEASE_SECONDS)
    last = lab.submit()
    assert lab.finish(last) is State.SUCCEEDED
    for experiment, epochs in ((first, 30), (other, EPOCHS), (last, EPOCHS)):
        lab.assert_sound(experiment, epochs=epochs)
    database.close()
