import json
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cbam_core.errors import CheckpointError
from cbam_core.spec import CheckpointSpec
from workers.train.checkpoint import Checkpoints, Manifest, kept_steps


@pytest.fixture
def checkpoints(tmp_path):
    store = Checkpoints(tmp_path, CheckpointSpec(keep_last=3, keep_best=0))
    for step in (5, 10, 15):
        store.save(step, {"step": step, "weights": torch.full((4,), float(step))}, {})
    return store


def test_the_newest_comes_back_as_it_was(checkpoints):
    assert checkpoints.newest() == 15
    assert torch.equal(checkpoints.load(15)["weights"], torch.full((4,), 15.0))


def flip_a_byte(folder):
    data = bytearray((folder / "state.pt").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(data)


def cut(folder):
    data = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(data[:-1])


@pytest.mark.parametrize(
    "harm",
    [
        flip_a_byte,
        cut,
        lambda folder: (folder / "state.pt").unlink(),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text('{"step": 15, "by'),
        lambda folder: (folder / "manifest.json").write_text("[]"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(checkpoints, tmp_path, harm, caplog):
    harm(tmp_path / "step-15")
    assert checkpoints.newest() == 10
    assert "step-15" in caplog.text


def test_a_damaged_checkpoint_takes_no_place_from_a_whole_one(checkpoints, tmp_path):
    """A resumed training is back at an earlier step than the damaged ones are of."""
    for step in (10, 15):
        flip_a_byte(tmp_path / f"step-{step}")
    assert checkpoints.newest() == 5
    for step in (6, 7):
        checkpoints.save(step, {"step": step}, {})
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["step-5", "step-6", "step-7"]
    assert checkpoints.newest() == 7


def test_a_training_without_checkpoints_has_no_newest(tmp_path):
    assert Checkpoints(tmp_path / "none", CheckpointSpec()).newest() is None


def test_nothing_but_data_is_unpickled(checkpoints, tmp_path):
    (tmp_path / "step-15" / "state.pt").write_bytes(pickle.dumps({"run": print}))
    with pytest.raises(CheckpointError):
        checkpoints.load(15)


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match="step 5"):
        Checkpoints(tmp_path / "file", CheckpointSpec()).save(5, {}, {})


def test_a_better_one_is_kept_beside_the_newest(tmp_path):
    store = Checkpoints(tmp_path, CheckpointSpec(keep_last=1, keep_best=1))
    for step, top1 in ((1, 0.5), (2, 0.9), (3, 0.7), (4, 0.6)):
        assert store.is_among_best({"val/top1": top1}) == (step in (1, 2))
        store.save(step, {"step": step}, {"val/top1": top1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-2", "step-4"]
    assert json.loads((tmp_path / "step-2" / "manifest.json").read_text())["metrics"] == {"val/top1": 0.9}


@given(
    values=st.dictionaries(st.integers(0, 1000), st.none() | st.floats(0, 1), max_size=12),
    keep_last=st.integers(1, 4),
    keep_best=st.integers(0, 4),
    lowest=st.booleans(),
)
def test_what_is_kept_are_the_newest_and_the_best(values, keep_last, keep_best, lowest):
    metric, mode = ("val/loss", "min") if lowest else ("val/top1", "max")
    policy = CheckpointSpec(keep_last=keep_last, keep_best=keep_best, metric=metric, mode=mode)
    manifests = [Manifest(step, {} if v is None else {metric: v}, 0, "") for step, v in values.items()]
    kept = kept_steps(manifests, policy)
    assert set(sorted(values)[-keep_last:]) <= kept
    measured = {step: value for step, value in values.items() if value is not None}
    others = set(measured) - kept
    best = [step for step in measured if step in kept]
    assert len(best) >= min(keep_best, len(measured))
    if keep_best and others:
        worst_kept_best = sorted((measured[step] for step in best), reverse=not lowest)[:keep_best][-1]
        assert all(measured[s] >= worst_kept_best if lowest else measured[s] <= worst_kept_best for s in others)
    assert len(kept) <= keep_last + keep_best


def test_a_checkpoint_of_before_its_evaluation_may_be_the_best_by_it(tmp_path):
    """One that a pause wrote, where the evaluation came after the resume."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", CheckpointSpec())
    checkpoints.save(5, {"step": 5}, {"val/top1": 0.5})
    checkpoints.save(10, {"step": 10}, {})
    assert checkpoints.best() == 5
    checkpoints.note(10, {})
    assert checkpoints.best() == 5
    checkpoints.note(10, {"val/top1": 0.6})
    assert checkpoints.best() == 10
    checkpoints.note(10, {"val/top1": 0.4})
    assert checkpoints.best() == 10, "what is known of a step does not change"
    assert checkpoints.newest() == 10
