"""Only the newest attempt of an experiment may write; whoever it was taken from ends by itself."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cbam_core.errors import CheckpointError, Superseded
from workers.protocol.fence import EVERY_SECONDS, Fence, holds, newest_attempt


@pytest.fixture
def attempt(tiny_spec, assign):
    return lambda number, token: assign(tiny_spec(), attempt=number, token=token)


def test_the_newest_attempt_may_write_and_the_one_before_it_may_not(attempt):
    first, second = attempt(1, "t1"), attempt(3, "t3")
    assert newest_attempt(first.folder) == 0
    Fence(first).take()
    Fence(first).check()
    Fence(second).take()
    Fence(second).check()
    assert newest_attempt(first.folder) == 3
    with pytest.raises(Superseded, match="attempt 3 of this experiment has begun, so attempt 1 ends"):
        Fence(first).check()
    with pytest.raises(Superseded):
        Fence(first).take()


def test_of_many_that_take_the_same_number_one_gets_it(attempt):
    def take(number):
        try:
            Fence(attempt(1, f"t{number}")).take()
        except Superseded:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, range(24))) == 1


def test_taking_it_again_under_the_same_token_changes_nothing(attempt):
    Fence(attempt(1, "t1")).take()
    Fence(attempt(1, "t1")).take()


def test_a_folder_without_a_fence_supersedes_nobody(attempt):
    Fence(attempt(1, "t1")).take()
    attempt(2, "t2").folder.attempt(2).path.mkdir()
    Fence(attempt(1, "t1")).check()


def test_storage_that_does_not_answer_stops_a_write_but_supersedes_nobody(attempt, monkeypatch):
    fence = Fence(attempt(1, "t1"))
    fence.take()

    def away(_folder):
        raise OSError("stale file handle")

    monkeypatch.setattr("workers.protocol.fence.newest_attempt", away)
    with pytest.raises(CheckpointError, match="stale file handle"):
        fence.check()
    monkeypatch.setattr("workers.protocol.fence.EVERY_SECONDS", 0.0)
    fence.check_now_and_then()


def test_the_files_tell_that_no_two_were_alive_at_once(attempt):
    mine, next_one = attempt(1, "t1"), attempt(2, "t2")
    fence = Fence(mine)
    fence.take()
    (began,) = holds(mine.folder)
    deadline = time.monotonic() + 30
    while holds(mine.folder) == [began]:
        fence.check_now_and_then()
        assert time.monotonic() < deadline, f"it looks every {EVERY_SECONDS} s"
    (held,) = holds(mine.folder)
    assert (held.attempt, held.taken_at) == (1, began.taken_at)
    assert held.seen_at > began.seen_at
    Fence(next_one).take()
    with pytest.raises(Superseded):
        fence.check()
    before, after = holds(mine.folder)
    assert before == held, "whoever is superseded does not say that it is alive"
    assert before.seen_at <= after.taken_at


def test_a_superseded_training_ends_without_another_write(attempt, train):
    """As a worker that was cut off from its cluster, but not from storage, while another took over."""
    mine = attempt(1, "t1")
    seen = {}

    def take_over(progress):
        if progress.step == 7 and not seen:
            Fence(attempt(2, "t2")).take()
            seen["step"] = progress.step
            seen["checkpoints"] = sorted(mine.folder.checkpoints.iterdir())

    outcome, _ = train(mine, stop_when=take_over)
    assert (outcome.outcome, outcome.reason) == ("failed", "WORKER_DIED")
    assert "attempt 2 of this experiment has begun" in outcome.message
    assert sorted(mine.folder.checkpoints.iterdir()) == seen["checkpoints"], "no checkpoint was written or pruned"
    assert not mine.folder.weights.exists()
