"""What was started is found again and ended, whoever is its parent by then; what was not started is left alone."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from service.stack.processes import MARK, leader, members, start, terminate
from service.stack.record import ProcessRecord
from tests.support.waiting import has_ended, wait_until

SLEEP = "import time; time.sleep(60)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {DEAF!r}]); {SLEEP}"


@pytest.fixture
def launch(tmp_path):
    started = []

    def launch(code, mark="ours"):
        environment = os.environ | {MARK: mark}
        log = tmp_path / "logs" / "x.log"
        started.append(start([sys.executable, "-c", code], environment=environment, cwd=tmp_path, log=log))
        wait_until(lambda: runs(psutil.Process(started[-1].pid), code), "the process to be what it is to become")
        return started[-1]

    yield launch
    terminate([members(record, "ours") for record in started], grace_seconds=0)


def runs(process, code):
    """Before, in the midst of exec, a process shows no environment, as one does whose title has wiped it."""
    return process.cmdline()[-1:] == [code]


def family(launch):
    """A leader and its child."""
    record = launch(PARENT)
    wait_until(lambda: any(runs(process, DEAF) for process in members(record, "ours")), "the child")
    assert len(members(record, "ours")) == 2
    return record


def test_a_session_is_ended_whole_with_the_deaf_killed_after_the_grace(launch):
    record = family(launch)
    group = members(record, "ours")
    time_began = time.monotonic()
    terminate([group], grace_seconds=0.5)
    assert all(has_ended(process.pid) for process in group)
    assert 0.5 <= time.monotonic() - time_began < 10
    assert members(record, "ours") == []


def test_orphans_are_found_after_their_leader_was_killed(launch):
    record = family(launch)
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: leader(record) is None, "the leader's end")
    (orphan,) = members(record, "ours")
    assert orphan.pid != record.pid
    terminate([[orphan]], grace_seconds=0.2)
    assert members(record, "ours") == []


def test_a_stranger_in_a_session_without_its_leader_is_left_alone(launch):
    record = family(launch)
    os.kill(record.pid, signal.SIGKILL)
    wait_until(lambda: leader(record) is None, "the leader's end")
    assert members(record, "another stack") == []


def test_a_later_process_of_the_same_id_is_not_taken_for_ours(launch):
    record = launch(SLEEP, mark="somebody else's")
    earlier = ProcessRecord(record.pid, record.create_time - 1000)
    assert leader(record) is not None
    assert leader(earlier) is None
    assert members(earlier, "ours") == []


def test_what_was_started_outlives_the_terminal_of_its_starter(launch):
    record = launch(SLEEP)
    assert os.getsid(record.pid) == record.pid != os.getsid(0)
    process = psutil.Process(record.pid)
    assert process.terminal() is None


@pytest.mark.parametrize(("code", "ends_with"), [("import sys; sys.exit(0)", 0), (None, 2)])
def test_the_keeper_ends_when_its_command_ended_well_or_there_is_none(code, ends_with):
    command = [sys.executable, "-m", "service.dispatcher.supervisor", *((sys.executable, "-c", code) if code else ())]
    assert subprocess.run(command, timeout=30, check=False, capture_output=True).returncode == ends_with


def test_the_keeper_starts_again_what_was_killed_and_passes_on_sigterm(tmp_path):
    runs = tmp_path / "runs"
    code = f"open({str(runs)!r}, 'a').write(str(__import__('os').getpid()) + ' '); {SLEEP}"
    with subprocess.Popen(
        [sys.executable, "-m", "service.dispatcher.supervisor", sys.executable, "-c", code]
    ) as keeper:
        pids = lambda: runs.read_text().split() if runs.exists() else []  # noqa: E731
        wait_until(pids, "the first run")
        os.kill(int(pids()[0]), signal.SIGKILL)
        wait_until(lambda: len(pids()) == 2, "the second run")
        keeper.terminate()
        keeper.wait(timeout=10)
    assert has_ended(int(pids()[1]))
