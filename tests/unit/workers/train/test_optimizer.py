import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from cbam_core.spec import (
    AdamWSpec,
    ConstantSchedule,
    CosineSchedule,
    LambSpec,
    MultistepSchedule,
    SGDSpec,
    StepSchedule,
    TimmOptimizerSpec,
)
from workers.train.optimizer import build_optimizer, learning_rate, set_learning_rate


def torch_rates(make_scheduler, steps, warmup):
    """The rates of torch's own schedulers, with its linear warm-up before them."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    main = make_scheduler(optimizer)
    schedule = main
    if warmup:
        rise = lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / warmup)
        schedule = lr_scheduler.SequentialLR(optimizer, [rise, main], milestones=[warmup])
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("warmup_epochs", [0, 1, 2.5])
@pytest.mark.filterwarnings("ignore:The epoch parameter in")
def test_cosine_is_torchs(warmup_epochs):
    spec = CosineSchedule(warmup_epochs=warmup_epochs, min_lr=0.01)
    ours = [learning_rate(spec, 0.3, step, steps_per_epoch=10, epochs=6) for step in range(60)]
    warmup = int(warmup_epochs * 10)
    theirs = torch_rates(
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 60 - warmup, eta_min=0.01), 60, warmup
    )
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_step_is_torchs():
    spec = StepSchedule(step_epochs=2, gamma=0.1)
    ours = [learning_rate(spec, 0.3, step, steps_per_epoch=5, epochs=6) for step in range(30)]
    theirs = torch_rates(lambda optimizer: lr_scheduler.StepLR(optimizer, 10, 0.1), 30, 0)
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_multistep_is_torchs():
    spec = MultistepSchedule(milestones=(2, 3, 5), gamma=0.3)
    ours = [learning_rate(spec, 0.3, step, steps_per_epoch=5, epochs=6) for step in range(30)]
    theirs = torch_rates(lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [10, 15, 25], 0.3), 30, 0)
    assert len(set(ours)) == 4
    assert ours == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("warmup_epochs", [0, 2])
@pytest.mark.filterwarnings("ignore:The epoch parameter in")
def test_constant_is_torchs(warmup_epochs):
    spec = ConstantSchedule(warmup_epochs=warmup_epochs)
    ours = [learning_rate(spec, 0.3, step, steps_per_epoch=5, epochs=6) for step in range(30)]
    theirs = torch_rates(lambda optimizer: lr_scheduler.ConstantLR(optimizer, factor=1.0), 30, warmup_epochs * 5)
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_the_warm_up_is_a_line_that_ends_at_the_peak():
    spec = StepSchedule(warmup_epochs=2)
    rates = [learning_rate(spec, 1.0, step, steps_per_epoch=4, epochs=10) for step in range(9)]
    assert rates == pytest.approx([1 / 8, 2 / 8, 3 / 8, 4 / 8, 5 / 8, 6 / 8, 7 / 8, 1, 1])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (SGDSpec(lr=0.2, momentum=0.8, weight_decay=0.01), {"lr": 0.2, "momentum": 0.8, "weight_decay": 0.01}),
        (AdamWSpec(lr=0.2, betas=(0.7, 0.8), weight_decay=0.3), {"lr": 0.2, "betas": (0.7, 0.8), "weight_decay": 0.3}),
        (LambSpec(lr=0.2, betas=(0.7, 0.8), weight_decay=0.3), {"lr": 0.2, "betas": (0.7, 0.8), "weight_decay": 0.3}),
    ],
)
def test_the_optimizer_has_what_the_spec_says(spec, expected):
    group = build_optimizer(spec, nn.Linear(2, 2)).param_groups[0]
    assert {name: group[name] for name in expected} == expected


@pytest.mark.parametrize("type_", ["timm:lion", "timm:adopt", "timm:muon"])
def test_timms_optimisers_have_our_groups_and_follow_our_schedule(type_):
    spec = TimmOptimizerSpec(type=type_, lr=0.2, weight_decay=0.3, decay_norms_and_biases=False)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = build_optimizer(spec, network)
    assert [(len(group["params"]), group["weight_decay"]) for group in optimizer.param_groups] == [(1, 0.3), (3, 0.0)]
    set_learning_rate(optimizer, 0.0)
    before = [weight.detach().clone() for weight in network.parameters()]
    for rate, moves in ((0.0, False), (0.1, True)):
        set_learning_rate(optimizer, rate)
        for _ in range(2):  # Adopt's first step only looks
            for weight in network.parameters():
                weight.grad = torch.ones_like(weight)
            optimizer.step()
        moved = [not weight.detach().equal(old) for weight, old in zip(network.parameters(), before, strict=True)]
        assert moved == [moves] * 4


def test_lamb_takes_the_steps_of_its_paper():
    """Algorithm 2 of You et al. (2020), with bias correction: Adam's direction, as long as the layer's weights."""
    torch.manual_seed(0)
    network = nn.Linear(3, 4, bias=False).double()
    optimizer = build_optimizer(LambSpec(lr=0.1, betas=(0.8, 0.9), weight_decay=0.2), network)
    weights = network.weight.detach().clone()
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(1, 6):
        gradient = 100 * torch.randn_like(weights)
        network.weight.grad = gradient.clone()
        optimizer.step()
        mean, square = 0.8 * mean + 0.2 * gradient, 0.9 * square + 0.1 * gradient**2
        direction = mean / (1 - 0.8**step) / ((square / (1 - 0.9**step)).sqrt() + 1e-6) + 0.2 * weights
        weights = weights - 0.1 * weights.norm() / direction.norm() * direction
        torch.testing.assert_close(network.weight.detach(), weights)
