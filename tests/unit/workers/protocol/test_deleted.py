"""A worker that was cut off while its experiment was deleted ends, and makes nothing of it again."""

import os

import pytest
import torch

from cbam_core.errors import CheckpointError, Superseded
from cbam_core.spec import CheckpointSpec
from service.dispatcher.file_cleanup import erase, erase_checkpoints, sweep
from workers.attempt import run
from workers.protocol.fence import Fence, reopen
from workers.protocol.outcome import Outcome
from workers.protocol.stop import StopSignal
from workers.protocol.storage import ExperimentFolder
from workers.train.checkpoint import Checkpoints


@pytest.fixture
def assignment(tiny_spec, assign):
    return assign(tiny_spec(checkpoint={"every_steps": 1}))


def left_of(assignment):
    """What there is beside the tombstone."""
    found = set((assignment.folder.storage_root / "experiments").rglob("*"))
    assert assignment.folder.tombstone in found
    return sorted(str(path) for path in found - {assignment.folder.tombstone})


@pytest.mark.parametrize("step", [1, 7, 10])
def test_a_training_whose_experiment_is_deleted_ends_and_writes_nothing_more(assignment, train, step):
    def delete(progress):
        if progress.step == step and progress.phase == "training":
            erase(assignment.folder)

    outcome, seen = train(assignment, stop_when=delete)
    assert (outcome.outcome, outcome.reason) == ("failed", "WORKER_DIED")
    assert "the experiment has been deleted" in outcome.message
    assert seen[-1].step <= step + 1
    assert left_of(assignment) == []


def test_what_is_deleted_while_a_checkpoint_is_written_stays_deleted(assignment, monkeypatch):
    Fence(assignment).take()
    plain = torch.save

    def save(state, file):
        plain(state, file)
        erase(assignment.folder)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(CheckpointError):
        Checkpoints(assignment.folder.checkpoints, CheckpointSpec()).save(1, {"step": 1}, {})
    assert left_of(assignment) == []


def test_a_record_of_a_deleted_attempt_is_only_told(assignment):
    Fence(assignment).take()
    erase(assignment.folder)
    outcome = Outcome("failed", "WORKER_DIED")
    assert outcome.record(assignment.folder.attempt(1)) is outcome
    assert left_of(assignment) == []


def test_ranks_that_begin_before_the_fence_is_there_wait_for_it(tiny_spec, assign):
    first, second = assign(tiny_spec()), Fence(assign(tiny_spec(), rank=1))
    second.check()
    Fence(first).take()
    second.check()
    erase(first.folder)
    with pytest.raises(Superseded, match="has been deleted"):
        second.check()
    with pytest.raises(Superseded, match="has been deleted"):
        Fence(first).check()


@pytest.mark.parametrize("rank", [0, 1])
def test_an_attempt_that_begins_after_the_deletion_ends_and_makes_no_folder(tiny_spec, assign, rank):
    late = assign(tiny_spec(resources={"workers": 2}), rank=rank)
    erase(late.folder)
    outcome = run(late, stop=StopSignal(), report=lambda _: pytest.fail("it has begun"))
    assert (outcome.outcome, outcome.reason, outcome.token) == ("failed", "WORKER_DIED", late.token)
    assert "has been deleted" in outcome.message
    assert left_of(late) == []
    with pytest.raises(Superseded, match="has been deleted"):
        Fence(late).take()
    reopen(late.folder)
    Fence(late).take()


def test_a_training_whose_checkpoints_are_pruned_ends_and_writes_none(assignment, train):
    def prune(progress):
        if progress.step == 3 and progress.phase == "training":
            erase_checkpoints(assignment.folder)

    outcome, _ = train(assignment, stop_when=prune)
    assert (outcome.outcome, outcome.reason) == ("failed", "WORKER_DIED")
    assert not assignment.folder.checkpoints.exists()
    assert assignment.folder.attempt(1).log(0).exists()
    assert assignment.folder.spec.exists()


def test_tombstones_go_when_nothing_can_ask_for_them_any_more(tmp_path):
    old, new = ExperimentFolder(tmp_path, "old"), ExperimentFolder(tmp_path, "new")
    erase(old)
    erase(new)
    os.utime(old.tombstone, (1000, 1000))
    sweep(tmp_path, older_than=2000)
    assert (old.tombstone.exists(), new.tombstone.exists()) == (False, True)


def test_what_an_earlier_deletion_left_is_deleted_with_the_rest(assignment):
    Fence(assignment).take()
    remains = assignment.folder.path.with_name(".e1.deleted")
    (remains / "checkpoints").mkdir(parents=True)
    erase(assignment.folder)
    assert left_of(assignment) == []
    erase(assignment.folder)
