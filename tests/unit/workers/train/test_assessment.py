"""What is reported at the end: val and test of the final weights, test of the best, every prediction, read once."""

import json
import math
import os

import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from cbam_core.errors import CheckpointError
from cbam_core.semantics import as_meant
from tests.support.journals import logged
from workers.classifier import load_classifier
from workers.data import load_dataset
from workers.data.batches import Batches
from workers.data.datasets import digits
from workers.data.datasets.base import Split
from workers.protocol.outcome import read_outcome
from workers.train.assessment import Evaluator
from workers.train.checkpoint import Checkpoints


@pytest.fixture
def reads(monkeypatch):
    """Which parts are evaluated, in their order."""
    seen: list[str] = []
    evaluated = Batches.evaluated
    monkeypatch.setattr(Batches, "evaluated", lambda batches, part: seen.append(part) or evaluated(batches, part))
    return seen


def of_parts(folder):
    """The rows of the predictions, by split."""
    table = pq.read_table(folder.predictions).to_pandas()
    return dict(tuple(table.groupby("split")))


def top1(rows) -> float:
    return int((rows.predicted == rows.label).sum()) / len(rows)


def test_test_is_read_once_and_only_when_all_is_trained(tiny_spec, assign, train, reads):
    spec = tiny_spec(train={"epochs": 3}, checkpoint={"keep_best": 0})
    outcome, seen = train(assign(spec))
    assert outcome.outcome == "succeeded", outcome.message
    assert reads == ["val", "val", "val", "test"]
    before = [progress for progress in seen if progress.phase == "training"]
    assert not [name for progress in before for name in progress.metrics if name.startswith("test")]
    assert "test/top1" in seen[-1].metrics


def test_the_best_checkpoint_is_tested_too_where_it_is_another(tiny_spec, assign, train, reads):
    """A rate that is far too large at the end: the best weights are earlier ones."""
    schedule = {"type": "multistep", "milestones": [3], "gamma": 1.0}
    spec = tiny_spec(train={"epochs": 5, "schedule": schedule, "optimizer": {"type": "sgd", "lr": 0.5}})
    assignment = assign(spec)
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded", outcome.message
    checkpoints = Checkpoints(assignment.folder.checkpoints, spec.checkpoint)
    best = checkpoints.best()
    assert best < outcome.step, "else this test shows nothing: choose another seed"
    assert reads == ["val"] * 5 + ["test", "test"]

    classifier, _ = load_classifier(assignment.folder.weights)
    test = load_dataset(spec.data).test
    for name, state in (("test", None), ("test_best", checkpoints.load(best)["learner"]["network"])):
        if state is not None:
            classifier.network.load_state_dict(state)
        with torch.no_grad():
            right = (classifier(test.images / 255).argmax(1) == test.labels).sum().item()
        assert outcome.metrics[f"{name}/top1"] == right / 355 == top1(of_parts(assignment.folder)[name])
    assert outcome.metrics["test/top1"] != outcome.metrics["test_best/top1"]


def test_every_prediction_is_kept_and_gives_the_metrics(tiny_spec, assign, train):
    assignment = assign(tiny_spec(train={"epochs": 2}))
    outcome, _ = train(assignment)
    dataset, parts = load_dataset(assignment.spec.data), of_parts(assignment.folder)
    classifier, _ = load_classifier(assignment.folder.weights)
    for name in ("val", "test"):
        rows, images = parts[name], getattr(dataset, name)
        assert rows["index"].tolist() == images.origin.tolist()
        assert rows.label.tolist() == images.labels.tolist()
        assert rows.path.isna().all()
        with torch.no_grad():
            shares = classifier(images.images / 255).softmax(1)
        assert rows.predicted.tolist() == shares.argmax(1).tolist()
        told, right = torch.tensor(rows.probability.to_numpy()), shares[torch.arange(len(images)), images.labels]
        torch.testing.assert_close(told, right, rtol=1e-4, atol=1e-6)
        assert top1(rows) == outcome.metrics[f"{name}/top1"]
        within = [label in best for label, best in zip(rows.label, rows.top5, strict=True)]
        assert sum(within) / len(within) == outcome.metrics[f"{name}/top5"]
        assert rows.loss.mean() == pytest.approx(outcome.metrics[f"{name}/loss"], rel=1e-6)
        torch.testing.assert_close(torch.tensor(rows.loss.to_numpy()), -told.log(), rtol=1e-4, atol=1e-5)
    assert json.loads(pq.read_schema(assignment.folder.predictions).metadata[b"classes"]) == list("0123456789")


def test_labels_of_test_decide_nothing(tiny_spec, assign, train, monkeypatch):
    """Shuffled, they change what is said of test, and nothing else."""
    spec, ends = tiny_spec(train={"epochs": 3}), []
    load = digits.load_digits

    def shuffled():
        source = load()
        order = torch.randperm(len(source.test), generator=torch.Generator().manual_seed(0))
        return type(source)(source.train, Split(source.test.images, source.test.labels[order]), source.classes)

    for name, loader in (("as it is", load), ("shuffled", shuffled)):
        monkeypatch.setattr("workers.data.datasets.registry.load_digits", loader)
        assignment = assign(spec, experiment_id=name.replace(" ", "-"))
        outcome, _ = train(assignment)
        weights = load_file(assignment.folder.weights)
        mine = {key: value for key, value in logged(assignment.folder).items() if "images_per" not in key[0]}
        ends.append((outcome.metrics, weights, {key: mine[key] for key in mine if "wait" not in key[0]}))
    (first, weights, curves), (second, same_weights, other_curves) = ends
    changed = {name for name in first if first[name] != second[name]}
    assert changed == {name for name in first if name.startswith("test/")}
    assert all(torch.equal(weights[name], same_weights[name]) for name in weights)
    assert {name for name, step in curves if curves[name, step] != other_curves[name, step]} == changed


@pytest.mark.parametrize("how", ["pause", "cancel"])
def test_a_training_that_is_stopped_while_it_is_tested_goes_on_there(tiny_spec, assign, train, reads, how):
    spec = tiny_spec(train={"epochs": 1}, checkpoint={"keep_best": 0})
    unbroken, _ = train(assign(spec, experiment_id="unbroken"))
    reads.clear()

    def when(_progress):
        return reads[-1:] == ["test"] and how

    outcome, _ = train(assign(spec), stop_when=when)
    assert outcome.outcome == {"pause": "paused", "cancel": "cancelled"}[how]
    assert not [name for name in outcome.metrics if name.startswith("test")]
    again = assign(spec, attempt=2, token="t2")
    outcome, _ = train(again)
    assert outcome.outcome == "succeeded"
    assert {name: outcome.metrics[name] for name in outcome.metrics if name.startswith(("val/", "test/"))} == {
        name: unbroken.metrics[name] for name in unbroken.metrics if name.startswith(("val/", "test/"))
    }
    assert reads == ["val", "test", "val", "test"], "val too: what was said of each image is in no checkpoint"
    assert set(of_parts(again.folder)) == {"val", "test"}


def test_an_experiment_of_the_earliest_semantics_chooses_by_what_is_held_out(tiny_spec, assign, train, reads):
    spec = as_meant(tiny_spec(train={"epochs": 2}), 1)
    assignment = assign(spec, semantics=1)
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded"
    assert reads == ["val", "val"]
    assert (outcome.summary["train_images"], outcome.summary["val_images"]) == (1442, 355)
    assert outcome.summary["test_images"] is None
    assert not [name for name in outcome.metrics if name.startswith("test")]
    assert set(of_parts(assignment.folder)) == {"val"}
    assert not assignment.folder.test_confusion_matrix.exists()
    assert assignment.folder.semantics.read_text() == "1\n"
    with safe_open(assignment.folder.weights, framework="pt") as file:
        assert file.metadata()["semantics"] == "1"


def test_paths_stand_beside_the_predictions_of_files(tiny_spec, assign, train, tmp_path):
    from tests.unit.workers.data.test_splits import make

    data = make(tmp_path / "images", "train", "test", count=20)
    assignment = assign(
        tiny_spec(data=data.model_dump(), train={"epochs": 1, "global_batch_size": 8}), data_roots=(str(tmp_path),)
    )
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded", outcome.message
    parts = of_parts(assignment.folder)
    assert parts["test"].path.str.fullmatch(r"test/(cat|dog)/p\d+-\d+\.png").all()
    assert parts["val"].path.str.fullmatch(r"train/(cat|dog)/p\d+-\d+\.png").all()
    assert len(parts["val"]) == 4
    assert read_outcome(assignment.folder.attempt(1)).summary["split"].startswith("36 train (the folder train), 4 val")


def noisy():
    """A recipe whose last weights are not its best."""
    schedule = {"type": "multistep", "milestones": [3], "gamma": 1.0}
    return {"epochs": 5, "schedule": schedule, "optimizer": {"type": "sgd", "lr": 0.5}}


def log_of(assignment) -> str:
    return assignment.folder.attempt(1).log(0).read_text()


def test_a_best_checkpoint_that_cannot_be_read_costs_no_training(tiny_spec, assign, train, monkeypatch):
    def unreadable(_checkpoints, step):
        raise CheckpointError(f"cannot read step {step}")

    monkeypatch.setattr(Checkpoints, "load", unreadable)
    assignment = assign(tiny_spec(train=noisy()))
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded", outcome.message
    assert "the best checkpoint is not evaluated on test: cannot read step" in log_of(assignment)
    assert set(of_parts(assignment.folder)) == {"val", "test"}


def test_a_test_image_without_a_finite_score_costs_no_training(tiny_spec, assign, train, monkeypatch):
    evaluate = Evaluator.evaluate

    def overflowing(evaluator, part, predict, **fields):
        scores = (lambda images: predict(images) * math.inf) if part == "test" else predict
        return evaluate(evaluator, part, scores, **fields)

    monkeypatch.setattr(Evaluator, "evaluate", overflowing)
    assignment = assign(tiny_spec(train={"epochs": 1}))
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded", outcome.message
    assert "test/loss" not in outcome.metrics
    assert "test/top1" in outcome.metrics
    assert "some test image has no finite score" in log_of(assignment)
    assert assignment.folder.weights.exists()


def test_a_checkpoint_of_before_its_evaluation_has_the_running_statistics_of_its_step(tiny_spec, assign, train):
    """The average's are those of the last evaluation, until it is evaluated or saved."""
    spec = tiny_spec(train={"epochs": 2, "ema": {"decay": 0.9}})
    assignment = assign(spec)
    train(assignment, stop_when=lambda progress: progress.step == 5 and "pause")
    saved = Checkpoints(assignment.folder.checkpoints, spec.checkpoint).load(5)["learner"]
    running = {name: value for name, value in saved["network"].items() if name.endswith("running_mean")}
    assert running
    assert all(torch.equal(saved["average"][name], value) for name, value in running.items())


def test_a_name_that_is_no_text_is_shown_as_it_is(tiny_spec, assign, train, tmp_path):
    from tests.unit.workers.data.test_splits import make

    data = make(tmp_path / "images", "train", "test", count=20)
    odd = os.fsencode(tmp_path / "images" / "test" / "cat" / "p0-0.png")
    os.rename(odd, odd.replace(b"p0-0", b"\xff"))
    assignment = assign(
        tiny_spec(data=data.model_dump(), train={"epochs": 1, "global_batch_size": 8}), data_roots=(str(tmp_path),)
    )
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded", outcome.message
    assert "test/cat/\\xff.png" in set(of_parts(assignment.folder)["test"].path)
