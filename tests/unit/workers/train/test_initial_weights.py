"""A training from a weights file: the same bytes in every attempt; what is frozen stays, each weight has its rate."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from cbam_core.networks import build_network
from cbam_core.networks.learning_rates import lr_scales
from cbam_core.spec import AdamWSpec, ModelSpec, SGDSpec
from workers.train.optimizer import build_optimizer, set_learning_rate

SGD = {"type": "sgd", "lr": 0.05}
ONE_EPOCH = {"epochs": 1, "global_batch_size": 640, "optimizer": SGD}


@pytest.fixture
def exported(tiny_spec, assign, train):
    """An experiment with an export: its assignment."""
    first = assign(tiny_spec(train=ONE_EPOCH), experiment_id="first")
    outcome, _ = train(first)
    assert outcome.outcome == "succeeded", outcome.message
    return first


def another(tiny_spec, **parts):
    return tiny_spec(**{**parts, "train": {**ONE_EPOCH, "seed": 7} | parts.get("train", {})})


def test_a_training_starts_from_an_experiment(tiny_spec, assign, train, exported, monkeypatch):
    there = load_file(exported.folder.weights)
    frozen = ["conv1", "bn1", "layer1", "layer2", "layer3", "fc.bias"]
    spec = another(tiny_spec, model={"weights": "first", "freeze": frozen[:5]})
    outcome, _ = train(assign(spec, experiment_id="second"))
    assert outcome.outcome == "succeeded", outcome.message
    second = assign(spec, experiment_id="second")
    after = load_file(second.folder.weights)
    learnt = {name for name in after if not torch.equal(after[name], there[name])}
    assert learnt == {"fc.weight", "fc.bias"}, "norms and attention among them keep their statistics"
    told = outcome.summary["weights"]
    assert (told["loaded"], told["missing_count"], told["unexpected_count"]) == (len(there), 0, 0)
    assert outcome.summary["weights_sha256"] == told["sha256"]
    assert json.loads(second.folder.initial_weights.read_text()) == told
    log = second.folder.attempt(1).log(0).read_text()
    assert f"weights of first (sha256 {told['sha256'][:12]}…): {len(there)} loaded, 0 missing, 0 unexpected" in log


def test_images_are_normalised_as_the_weights_learnt_them(tiny_spec, assign, train, exported, tmp_path):
    path = tmp_path / "other.safetensors"
    metadata = {"mean": "[0.25]", "std": "[0.5]"}
    save_file(load_file(exported.folder.weights), path, metadata)
    second = assign(another(tiny_spec, model={"weights": str(path)}), experiment_id="s", data_roots=(str(tmp_path),))
    outcome, _ = train(second)
    assert outcome.outcome == "succeeded", outcome.message
    from workers.classifier import describe_weights, load_classifier

    assert describe_weights(second.folder.weights)["mean"] == [0.25]
    load_classifier(second.folder.weights)  # needs the file it started from no more


@pytest.mark.parametrize("freeze", [[], ["backbone"]])
def test_a_pause_and_a_resume_give_the_unbroken_training(tiny_spec, assign, train, exported, freeze):
    spec = another(
        tiny_spec,
        model={"weights": "first", "freeze": freeze},
        train={"epochs": 2, "layer_decay": 0.5, "attention_lr_scale": 3.0, "ema": {"decay": 0.9}},
    )
    whole = assign(spec, experiment_id="whole")
    assert train(whole)[0].outcome == "succeeded"
    parts = assign(spec, experiment_id="parts")
    outcome, _ = train(parts, stop_when=lambda progress: "pause" if progress.step >= 1 else None)
    assert outcome.outcome == "paused"
    outcome, _ = train(assign(spec, experiment_id="parts", attempt=2, token="t2"))
    assert outcome.outcome == "succeeded", outcome.message
    one, two = load_file(whole.folder.weights), load_file(parts.folder.weights)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_other_bytes_are_refused_at_a_retry(tiny_spec, assign, train, exported):
    spec = another(tiny_spec, model={"weights": "first"})
    assert train(assign(spec, experiment_id="s"))[0].outcome == "succeeded"
    changed = load_file(exported.folder.weights)
    changed["fc.bias"] += 1
    save_file(changed, exported.folder.weights)
    outcome, _ = train(assign(spec, experiment_id="s", attempt=2, token="t2"))
    assert (outcome.outcome, outcome.reason) == ("failed", "USER_ERROR")
    assert "have changed since this experiment began" in outcome.message


@pytest.mark.parametrize(
    ("model", "reason", "words"),
    [
        ({"weights": "never"}, "USER_ERROR", "cannot be read"),
        ({"weights": {"source": "first", "sha256": "0" * 64}}, "USER_ERROR", "not those that were asked for"),
        ({"weights": "/elsewhere/w.pth"}, "USER_ERROR", "cannot be read"),
        ({"weights": "/etc/passwd"}, "DATA_ERROR", "leads out of the folders"),
        ({"weights": "first", "attention": {"type": "none"}}, "USER_ERROR", "weights unexpected"),
        ({"freeze": "layer9"}, "USER_ERROR", "no weights in a module layer9"),
    ],
)
def test_a_refusal_has_a_name(tiny_spec, assign, train, exported, tmp_path, model, reason, words):
    spec = another(tiny_spec, model=model)
    outcome, _ = train(assign(spec, experiment_id="s", data_roots=(str(tmp_path),)))
    assert (outcome.outcome, outcome.reason) == ("failed", reason)
    assert words in outcome.message


def network_of():
    return build_network(ModelSpec.model_validate({"backbone": "cifar_resnet20", "attention": "cbam"}), 10, seed=1)


@pytest.mark.parametrize("spec", [SGDSpec(), AdamWSpec(decay_norms_and_biases=False)])
def test_each_weight_has_its_rate_and_its_decay(spec):
    network = network_of()
    scales = lr_scales(network, layer_decay=0.5, attention=3)
    optimizer = build_optimizer(spec, network, lr_scales=scales)
    set_learning_rate(optimizer, 0.2)
    names = {weight: name for name, weight in network.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        for weight in group["params"]:
            decays = spec.decay_norms_and_biases or weight.ndim > 1
            seen[names[weight]] = group["lr"]
            assert group["weight_decay"] == (spec.weight_decay if decays else 0)
    assert seen == pytest.approx({name: 0.2 * scale for name, scale in scales.items()})


def test_without_them_the_groups_are_what_they_were():
    network = network_of()
    scales = lr_scales(network, layer_decay=None, attention=1)
    groups = build_optimizer(SGDSpec(), network, lr_scales=scales).param_groups
    assert len(groups) == 1
    assert "lr_scale" not in groups[0], "the state of a stored checkpoint fits"
