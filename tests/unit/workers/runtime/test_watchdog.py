"""A rank that no longer moves ends itself, with its stacks in its log: in processes of their own, as they end."""

import json
import subprocess
import sys
import time

import pytest

from workers.protocol.progress import Progress, hang_timeout_seconds
from workers.runtime.watchdog import watched

WATCHED = """
import ctypes, sys, time
from dataclasses import replace
from pathlib import Path
from workers.protocol.progress import Progress
from workers.runtime.watchdog import watched

now = Progress(phase="training", step=1)

def stand_still():
    time.sleep(60)

def hold_the_interpreter():
    ctypes.PyDLL(None).sleep(60)

def move():
    global now
    for step in range(20):
        now = replace(now, step=step)
        time.sleep(0.1)

def start_slowly():
    global now
    now = Progress(phase="starting")
    time.sleep(2)

def give_up(seconds):
    print(seconds, flush=True)

with watched(lambda: now, lambda _: 0.5, log=Path(sys.argv[1]), give_up=give_up):
    {action}()
print("went on")
"""


def run(action, log):
    command = [sys.executable, "-c", WATCHED.replace("{action}", action), str(log)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def test_a_thread_that_stands_still_is_shown_recorded_and_ended(tmp_path):
    ended = run("stand_still", tmp_path / "log")
    assert ended.returncode == 1
    assert 0.5 < float(ended.stdout) < 5
    assert "in stand_still" in (tmp_path / "log").read_text()


def test_where_no_thread_of_python_can_run_the_stacks_are_all_there_is(tmp_path):
    ended = run("hold_the_interpreter", tmp_path / "log")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "in hold_the_interpreter" in (tmp_path / "log").read_text()


@pytest.mark.parametrize("action", ["move", "start_slowly"])
def test_what_moves_or_has_not_begun_is_left_alone(tmp_path, action):
    assert run(action, tmp_path / "log").stdout == "went on\n"


def test_slow_steps_are_given_ten_of_them():
    assert hang_timeout_seconds(300, Progress(), 256) == 300
    assert hang_timeout_seconds(300, Progress(images_per_second=1000.0), 256) == 300
    assert hang_timeout_seconds(300, Progress(images_per_second=2.0), 256) == 10 * 128


def test_nothing_is_left_of_a_watch_that_has_ended(tmp_path):
    with watched(Progress, lambda _: 0.5, log=tmp_path / "log", give_up=lambda _: None):
        pass
    time.sleep(1.2)  # longer than its timer, which would end this process, would have waited
    assert (tmp_path / "log").read_text() == ""


STALL = """
import sys, time
from cbam_core.spec import read_spec
from workers.protocol.assignment import Assignment
from workers.attempt import run
from workers.protocol.stop import StopSignal

def stall(progress):
    if progress.phase == "training" and progress.step == 3:
        time.sleep(60)

run(Assignment("e1", 1, "t1", read_spec(sys.argv[1]), sys.argv[2], hang_seconds=5.0), stop=StopSignal(), report=stall)
"""


def test_a_training_that_stalls_says_so_in_its_record(tmp_path, tiny_spec, assign):
    (tmp_path / "spec.yaml").write_text(tiny_spec().to_yaml())
    command = [sys.executable, "-c", STALL, str(tmp_path / "spec.yaml"), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1, ended.stderr
    attempt = assign(tiny_spec()).folder.attempt(1)
    record = json.loads(attempt.result.read_text())
    assert (record["outcome"], record["reason"], record["token"]) == ("failed", "HANG_DETECTED", "t1")
    assert record["step"] in (2, 3)
    assert "in stall" in attempt.log(0).read_text()
