import copy
import shutil

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from cbam_core.spec import TrainSpec
from workers.train.distributed import ProcessGroup
from workers.train.learner import Learner

ALONE = ProcessGroup(0, 1, torch.device("cpu"))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(16, 3, 6, 6, generator=generator).double(), torch.randint(0, 5, (16,), generator=generator)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)).double()


def learn(batch, steps=3, **recipe):
    optimizer = {"type": "sgd", "lr": 0.1, "momentum": 0.0, "weight_decay": 0.0} | recipe.pop("optimizer", {})
    learner = Learner(TrainSpec.model_validate({"optimizer": optimizer, **recipe}), small_network(), ALONE)
    for step in range(steps):
        learner.learn(*batch, rate=0.1, step=step)
    return learner


def weights(network):
    return [weight.detach() for weight in network.parameters()]


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_accumulation_gives_the_step_of_the_whole_batch(batch, parts):
    for ours, whole in zip(weights(learn(batch, accumulate=parts).network), weights(learn(batch).network), strict=True):
        torch.testing.assert_close(ours, whole, rtol=0, atol=1e-10)


def test_a_clipped_gradient_is_no_longer_than_the_spec_says(batch):
    start = weights(small_network())
    clipped = weights(learn(batch, steps=1, clip_norm=0.01).network)
    moved = torch.cat([(a - b).flatten() for a, b in zip(start, clipped, strict=True)])
    assert moved.norm().item() == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_the_average_follows_the_weights(batch):
    decay, expected = 0.9, weights(small_network())
    learner = Learner(TrainSpec.model_validate({"ema": {"decay": decay}}), small_network(), ALONE)
    for step in range(20):
        learner.learn(*batch, rate=0.1, step=step)
        keep = min(decay, (1 + step) / (10 + step))
        expected = [keep * old + (1 - keep) * new for old, new in zip(expected, weights(learner.network), strict=True)]
    for ours, theirs in zip(weights(learner.result), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert learner.result is not learner.network


def test_the_average_predicts_with_the_running_statistics_of_the_network():
    learner = Learner(TrainSpec.model_validate({"ema": {}}), nn.Sequential(nn.BatchNorm2d(2), nn.Flatten()), ALONE)
    learner.learn(torch.randn(8, 2, 1, 1) + 5, torch.zeros(8, dtype=torch.int64), rate=0.1, step=0)
    with learner.predicting():
        assert learner.result[0].running_mean.abs().min() > 0.1
        torch.testing.assert_close(learner.result[0].running_mean, learner.network[0].running_mean)


def test_averaged_running_statistics_are_those_of_timms_average():
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    learner = Learner(TrainSpec.model_validate({"ema": {"decay": 0.1, "buffers": "average"}}), network(), ALONE)
    theirs = ModelEmaV3(network(), decay=0.1)  # so short that our warm-up of the decay, (1 + k) / (10 + k), is over
    for step in range(5):
        learner.learn(torch.randn(8, 2, 4, 4) + step, torch.zeros(8, dtype=torch.int64), rate=0.1, step=step)
        theirs.update(learner.network)
    with learner.predicting():
        pass
    expected = theirs.module.state_dict()
    for name, value in learner.state()["average"].items():
        torch.testing.assert_close(value, expected[name])
    assert not torch.equal(learner.average[1].running_mean, learner.network[1].running_mean)


def test_label_smoothing_is_torchs(batch):
    loss = Learner(TrainSpec(label_smoothing=0.2), small_network(), ALONE).learn(*batch, rate=0.0, step=0)
    expected = nn.functional.cross_entropy(small_network()(batch[0]), batch[1], label_smoothing=0.2)
    torch.testing.assert_close(loss.double(), expected.detach(), rtol=1e-6, atol=0)


def test_decay_leaves_norms_and_biases_alone_where_asked():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    recipe = {"type": "sgd", "weight_decay": 0.3, "decay_norms_and_biases": False}
    groups = Learner(TrainSpec.model_validate({"optimizer": recipe}), network, ALONE).optimizer.param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.3, 1), (0.0, 3)]


def test_half_precision_computes_in_half_and_keeps_full_weights():
    seen = []
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    network[1].register_forward_hook(lambda _module, _inputs, output: seen.append(output.dtype))
    learner = Learner(TrainSpec(precision="bf16"), network, ALONE)
    learner.learn(torch.randn(4, 1, 2, 2), torch.zeros(4, dtype=torch.int64), rate=0.1, step=0)
    assert seen == [torch.bfloat16]
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}


def test_fp16_skips_a_step_whose_scaled_gradient_overflows():
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    before = copy.deepcopy(network.state_dict())
    learner = Learner(TrainSpec(precision="fp16"), network, ALONE)
    scale = learner.state()["scaler"]["scale"]
    learner.learn(torch.full((4, 1, 2, 2), 6e4), torch.tensor([0, 1, 0, 1]), rate=0.1, step=0)
    assert learner.state()["scaler"]["scale"] == scale / 2
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_channels_last_reaches_the_convolutions():
    seen = []
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network[0].register_forward_hook(
        lambda _module, inputs, _output: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    learner = Learner(TrainSpec(channels_last=True), network, ALONE)
    learner.learn(torch.randn(2, 3, 8, 8), torch.zeros(2, dtype=torch.int64), rate=0.1, step=0)
    assert seen == [True]


def test_a_state_brings_the_loss_scale_back():
    images, labels = torch.full((4, 1, 2, 2), 6e4), torch.tensor([0, 1, 0, 1])
    first, second = (
        Learner(TrainSpec(precision="fp16"), nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), ALONE) for _ in "ab"
    )
    first.learn(images, labels, rate=0.1, step=0)
    assert first.state()["scaler"] != second.state()["scaler"], "it overflowed"
    second.load(copy.deepcopy(first.state()))
    assert first.state()["scaler"] == second.state()["scaler"]


def test_a_state_brings_a_learner_back(batch):
    recipe = {"ema": {}, "optimizer": {"type": "adamw"}}
    first = Learner(TrainSpec.model_validate(recipe), small_network(), ALONE)
    for step in range(3):
        first.learn(*batch, rate=0.1, step=step)
    second = Learner(TrainSpec.model_validate(recipe), small_network(), ALONE)
    second.load(copy.deepcopy(first.state()))
    for learner in (first, second):
        learner.learn(*batch, rate=0.1, step=3)
    for network in ("network", "average"):
        ours, theirs = weights(getattr(first, network)), weights(getattr(second, network))
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore")
def test_compiled_training_follows_the_eager_one():
    images, labels = torch.randn(8, 1, 2, 2), torch.randint(0, 3, (8,))
    losses = {}
    for compiled in (False, True):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        learner = Learner(TrainSpec(compile=compiled), network, ALONE)
        assert (network._compiled_call_impl is not None) == compiled
        losses[compiled] = torch.stack([learner.learn(images, labels, rate=0.1, step=step) for step in range(4)])
        assert list(learner.state()["network"]) == ["1.weight", "1.bias"], "weights keep their names"
    torch.testing.assert_close(losses[True], losses[False])
