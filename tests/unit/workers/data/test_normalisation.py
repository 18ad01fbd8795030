"""Images reach the network as its weights have learnt to see them, wherever the network goes."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file

from cbam_core.networks import build_network
from tests.support.published_weights import publish, use_cache
from workers.classifier import load_classifier
from workers.data import load_dataset
from workers.train import network, trainer
from workers.train.checkpoint import MANIFEST, STATE, Checkpoints

NAME = "tf_mobilenetv3_small_minimal_100"
"""Small, and trained with a mean and deviation of 0.5, which are not ImageNet's."""
MODEL = {"backbone": f"timm:{NAME}", "pretrained": True, "attention": {"type": "none"}}


@pytest.fixture
def pretrained_spec(tiny_spec, tmp_path, monkeypatch):
    """Fine-tuning on the digits, one channel."""
    publish(use_cache(tmp_path / "cache", monkeypatch), NAME)
    return tiny_spec(model=MODEL, data={"image_size": 32}, train={"optimizer": {"type": "sgd", "lr": 0.01}})


def weights_of(assignment):
    return load_file(assignment.folder.weights)


def same(ours, theirs):
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_published_weights_are_trained_tested_and_exported_with_their_own_statistics(pretrained_spec, assign, train):
    assignment = assign(pretrained_spec)
    outcome, _ = train(assignment)
    assert outcome.outcome == "succeeded", outcome.message
    digits, published = load_dataset(pretrained_spec.data), timm.get_pretrained_cfg(NAME)
    assert published.mean == published.std == (0.5, 0.5, 0.5)
    assert digits.mean[0] != pytest.approx(0.5, abs=0.1)

    network = build_network(pretrained_spec.model.model_copy(update={"pretrained": False}), 10, 1).eval()
    network.load_state_dict(weights_of(assignment))
    classifier, _ = load_classifier(assignment.folder.weights)
    pixels = digits.val.images / 255
    with torch.no_grad():
        scores, predicted = network((pixels - 0.5) / 0.5), classifier(pixels)
    torch.testing.assert_close(predicted, scores)
    loss = torch.nn.functional.cross_entropy(scores.double(), digits.val.labels).item()
    assert outcome.metrics["val/loss"] == pytest.approx(loss, rel=1e-4)


def test_the_first_step_sees_images_as_the_published_weights_do(pretrained_spec, assign, train, monkeypatch):
    seen = []
    learn = trainer.Learner.learn
    monkeypatch.setattr(
        trainer.Learner,
        "learn",
        lambda learner, images, *rest, **kw: seen.append(images) or learn(learner, images, *rest, **kw),
    )
    train(assign(pretrained_spec), stop_when=lambda progress: progress.step == 1 and "cancel")
    pixels = (seen[0] * 0.5 + 0.5) * 255
    torch.testing.assert_close(pixels, pixels.round(), atol=1e-3, rtol=0)
    assert (seen[0].min(), seen[0].max()) == (-1, 1)


def test_random_weights_see_images_with_the_statistics_of_the_dataset(tiny_spec, assign, train):
    assignment = assign(tiny_spec(train={"epochs": 1}))
    train(assignment)
    classifier, _ = load_classifier(assignment.folder.weights)
    digits = load_dataset(assignment.spec.data)
    assert (classifier.mean.item(), classifier.std.item()) == pytest.approx((digits.mean[0], digits.std[0]))


def test_a_resumed_training_sees_what_its_weights_have_learnt_from(pretrained_spec, assign, train, monkeypatch):
    """Whatever timm says of the weights by then."""
    train(assign(pretrained_spec, experiment_id="unbroken"))
    train(assign(pretrained_spec), stop_when=lambda progress: progress.step == 3 and "pause")
    monkeypatch.setattr(network, "published_normalisation", lambda *_: None)
    train(assign(pretrained_spec, attempt=2, token="t2"))
    unbroken, resumed = (assign(pretrained_spec, experiment_id=name) for name in ("unbroken", "e1"))
    assert same(weights_of(resumed), weights_of(unbroken))
    assert load_classifier(resumed.folder.weights)[0].mean.item() == 0.5


def test_a_training_of_before_goes_on_as_it_began(pretrained_spec, assign, train, monkeypatch):
    """Once, published weights were given images with the dataset's statistics, and checkpoints did not say so."""
    with monkeypatch.context() as before:
        before.setattr(network, "published_normalisation", lambda *_: None)
        train(assign(pretrained_spec, experiment_id="unbroken"))
        train(assign(pretrained_spec), stop_when=lambda progress: progress.step == 3 and "pause")
    old = assign(pretrained_spec)
    forget_normalisation(Checkpoints(old.folder.checkpoints, pretrained_spec.checkpoint), old.folder.checkpoints)
    outcome, _ = train(assign(pretrained_spec, attempt=2, token="t2"))
    assert outcome.summary["resumed_from_step"] == 3
    assert same(weights_of(old), weights_of(assign(pretrained_spec, experiment_id="unbroken")))
    assert "as when this training began" in old.folder.attempt(2).log(0).read_text()


def forget_normalisation(checkpoints, folder):
    """Write the newest checkpoint again, as it was written once."""
    step = checkpoints.newest()
    state = checkpoints.load(step)
    metrics = json.loads((folder / f"step-{step}" / MANIFEST).read_text())["metrics"]
    del state["normalisation"]
    (folder / f"step-{step}" / STATE).unlink()
    checkpoints.save(step, state, metrics)
