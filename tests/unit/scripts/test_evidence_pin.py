"""scripts/evidence: every start trains by the code of one commit, whatever the checkout does, and alone."""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

SCRIPT = Path(__file__).parents[3] / "scripts" / "evidence"
PYTHON = """#!/usr/bin/env bash
echo "$(<"${PYTHONPATH%%:*}/code.txt") ${@: -1} $CBAM_HOME" >>"$LOG"
[[ $1 == -m ]] || exit 0
[[ -z ${TRAINS:-} ]] || { trap 'echo page >>"$LOG"; exit 1' TERM; while :; do sleep 0.1; done; }
exit "${ENDS_WITH:-0}"
"""


@pytest.fixture
def checkout(tmp_path):
    """A repository with the script, and a program in the place of Python that notes which code it is to run."""
    root = tmp_path / "checkout"
    (root / "scripts").mkdir(parents=True)
    (root / "docs").mkdir()
    shutil.copy(SCRIPT, root / "scripts" / "evidence")
    git(root, "init", "--quiet")
    commit(root, "first")
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    return root


def git(root, *words):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", "-C", root, *identity, *words], check=True, capture_output=True, text=True).stdout


def commit(root, words):
    (root / "code.txt").write_text(words)
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", words)


def start(root, **variables):
    environment = os.environ | {"PYTHON": str(root.parent / "python"), "LOG": str(root.parent / "log")} | variables
    environment.pop("PYTHONPATH", None)
    command = [root / "scripts" / "evidence"]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)


def log(root):
    return [line.split() for line in (root.parent / "log").read_text().splitlines()]


def test_every_start_trains_by_the_commit_of_the_first_and_the_newest_code_drives(checkout):
    pinned = git(checkout, "rev-parse", "HEAD").strip()
    assert start(checkout).returncode == 0
    assert (checkout / "docs" / "evidence" / "commit").read_text().strip() == pinned
    commit(checkout, "second")
    assert start(checkout).returncode == 0
    home, docs = str(checkout / ".cbam" / "evidence" / "home"), str(checkout / "docs")
    up, drive, down = ["first", "up", home], ["second", docs, home], ["first", "down", home]
    assert log(checkout) == [up, ["first", docs, home], down, up, drive, down]


def test_a_lost_folder_is_made_again_at_the_same_commit(checkout):
    start(checkout)
    commit(checkout, "second")
    shutil.rmtree(checkout / ".cbam")
    assert start(checkout).returncode == 0
    assert log(checkout)[3][:2] == ["first", "up"]


def test_a_folder_elsewhere_outlives_the_checkout(checkout, tmp_path):
    start(checkout, EVIDENCE_FOLDER=str(tmp_path / "kept"))
    moved = checkout.rename(tmp_path / "other")
    commit(moved, "second")
    assert start(moved, EVIDENCE_FOLDER=str(tmp_path / "kept")).returncode == 0
    assert log(moved)[3] == ["first", "up", str(tmp_path / "kept" / "home")]


def test_what_the_training_ends_with_is_told_and_the_stack_is_stopped(checkout):
    assert start(checkout, ENDS_WITH="3").returncode == 3
    assert log(checkout)[-1][:2] == ["first", "down"]


def test_a_sigterm_in_the_middle_ends_the_training_first_and_then_the_stack(checkout):
    environment = os.environ | {"PYTHON": str(checkout.parent / "python"), "LOG": str(checkout.parent / "log")}
    script = subprocess.Popen(
        [checkout / "scripts" / "evidence"], env=environment | {"TRAINS": "yes", "PYTHONPATH": ""}
    )
    try:
        wait_until(lambda: (checkout.parent / "log").exists() and len(log(checkout)) == 2, "the training")
        script.terminate()
        assert script.wait(timeout=30) == 143
    finally:
        script.kill()
    assert [line[0] for line in log(checkout)] == ["first", "first", "page", "first"]


def test_two_at_once_are_refused(checkout):
    folder = checkout / ".cbam" / "evidence"
    folder.mkdir(parents=True)
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        second = start(checkout)
    assert (second.returncode, "another one works in" in second.stderr) == (1, True)
    assert not (checkout.parent / "log").exists()
