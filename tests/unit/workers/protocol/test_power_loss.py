"""What is left of an experiment's folder when the power goes, at every moment at which that makes a difference."""

import json

import pytest
import torch

from cbam_core.spec import CheckpointSpec
from tests.support.forgetful_disk import ForgetfulDisk
from workers.classifier import load_classifier
from workers.protocol.outcome import Outcome, read_outcome
from workers.protocol.storage import AttemptFolder, ExperimentFolder, make_folder, write_atomically, write_once
from workers.tracking.journal import Journal
from workers.train.checkpoint import Checkpoints


@pytest.fixture
def disk(tmp_path, monkeypatch):
    disk = ForgetfulDisk(tmp_path / "disk", monkeypatch)
    yield disk
    disk.look = None
    disk.close()


@pytest.mark.parametrize("policy", [{"keep_last": 1, "keep_best": 0}, {"keep_last": 2, "keep_best": 1}])
def test_the_checkpoint_that_was_saved_is_never_lost_to_the_next_one(disk, policy):
    policy = CheckpointSpec(**policy)
    store, saved, looks = Checkpoints(disk.root / "checkpoints", policy), 0, 0

    def look(image):
        nonlocal looks
        looks += 1
        left = Checkpoints(image / "checkpoints", policy)
        newest = left.newest() or 0
        assert newest >= saved, "the newest that is whole"
        assert not newest or left.load(newest)["step"] == newest

    disk.look = look
    for step in range(1, 5):
        store.save(step, {"step": step, "weights": torch.rand(1000)}, {"val/top1": 1 / step})
        saved = step
        for image in disk.lose_power():
            look(image)
    assert looks > 40


@pytest.mark.parametrize("write", [write_atomically, write_once])
def test_what_is_written_is_whole_or_absent_and_stays(disk, write):
    path = disk.root / "experiments" / "e1" / "attempts" / "1" / "file"

    def look(image):
        left = image / path.relative_to(disk.root)
        assert not left.exists() or left.read_text() == "all of it"

    disk.look = look
    write(path, "all of it")
    assert [(image / path.relative_to(disk.root)).exists() for image in disk.lose_power()] == [True, True]


def test_how_an_attempt_ended_stays(disk):
    folder = disk.root / "attempts" / "1"
    make_folder(folder)
    outcome = Outcome("succeeded", step=7)
    outcome.record(AttemptFolder(folder))
    for image in disk.lose_power():
        assert read_outcome(AttemptFolder(image / "attempts" / "1")) == outcome


def test_no_mark_stands_behind_what_is_left_of_its_journal(disk):
    journal = Journal(disk.root / "e1" / "tracking.jsonl")
    appended = sent = 0

    def look(image):
        path = image / "e1" / "tracking.jsonl"
        mark = path.with_suffix(".sent")
        said = int(mark.read_text()) if mark.exists() else 0
        whole = path.read_bytes().rpartition(b"\n")[0] + b"\n" if path.exists() else b""
        assert said <= len(whole)
        assert whole[:said].count(b"\n") >= sent, "and what MLflow has is in it"
        assert b"\0" not in whole[:said]

    disk.look = look
    for step in range(1, 6):
        journal.append_metrics(step, {"train/loss": 1 / step}, 0)
        journal.append_metrics(step, {"val/top1": 1 / step}, 0)
        appended += 2
        journal.mark_sent(journal.pending()[-1][1])
        sent = appended
    journal.close()


@pytest.mark.slow
def test_a_training_can_go_on_from_whatever_is_left_of_it(disk, tiny_spec, assign, train):
    """Every checkpoint has its values in the journal, and a result that tells of success has its weights."""
    checkpoint = {"every_steps": 4, "keep_last": 1, "keep_best": 0}
    assignment = assign(tiny_spec(checkpoint=checkpoint), storage=str(disk.root))
    seen = set()

    def look(image):
        left = ExperimentFolder(image, "e1")
        newest = Checkpoints(left.checkpoints, assignment.spec.checkpoint).newest() or 0
        lines = left.journal.read_bytes().splitlines() if newest else []
        values = [json.loads(line) for line in lines if line.startswith(b'{"metrics": {"train/loss"')]
        assert [value["step"] for value in values][:newest] == list(range(1, newest + 1))
        outcome = read_outcome(left.attempt(1)) if left.attempt(1).path.exists() else None
        if outcome is not None:
            load_classifier(left.weights)
            assert json.loads(left.confusion_matrix.read_text())["accuracy"]
        seen.add((newest, outcome is not None))
        assert newest >= max(step for step, _ in seen) - 4

    disk.look = look
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded", outcome.message
    disk.look = None
    for image in disk.lose_power():
        assert read_outcome(ExperimentFolder(image, "e1").attempt(1)) == outcome
        assert len(ExperimentFolder(image, "e1").journal.read_bytes()) == assignment.folder.journal.stat().st_size
    assert {step for step, _ in seen} == {0, 4, 8, 10}
