"""The optimisers that a GPU has, run on the CPU, where torch has them too: beside those that a CPU has."""

import copy

import pytest
import torch
from torch import nn

from cbam_core.spec import AdamWSpec, LambSpec, SGDSpec
from workers.train import optimizer as optimizers
from workers.train.optimizer import build_optimizer, load_optimizer

SPECS = [
    SGDSpec(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    SGDSpec(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=False, decay_norms_and_biases=False),
    SGDSpec(lr=0.1, momentum=0.0, weight_decay=0.01),
    AdamWSpec(lr=0.1, weight_decay=0.3),
]
NAMES = ["nesterov", "momentum", "no momentum", "adamw"]


@pytest.fixture
def build(monkeypatch):
    """A network and its optimiser, with the kernels of a GPU or of a CPU."""

    def make(spec, *, gpu):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
        monkeypatch.setattr(optimizers, "_is_on_gpu", lambda _: gpu)
        return network, build_optimizer(spec, network)

    return make


def step(network, optimizer, number, scaler=None, factor=1.0):
    """One step, along gradients that are the same for all networks."""
    generator = torch.Generator().manual_seed(number)
    for weight in network.parameters():
        weight.grad = factor * torch.randn(weight.shape, generator=generator)
    if scaler is None:
        optimizer.step()
        return
    scaler.scale(torch.zeros(()))
    for weight in network.parameters():
        weight.grad *= scaler.get_scale()
    scaler.step(optimizer)
    scaler.update()


def assert_alike(first, second):
    for ours, theirs in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_fused_steps_are_those_of_the_plain_optimiser(build, spec):
    (plain, theirs), (fused, ours) = build(spec, gpu=False), build(spec, gpu=True)
    assert ours.param_groups[0]["fused"]
    assert not theirs.param_groups[0]["fused"]
    for number in range(4):
        step(plain, theirs, number)
        step(fused, ours, number)
    assert_alike(plain, fused)


@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_a_first_step_that_overflows_is_skipped_as_by_the_plain_optimiser(build, spec, monkeypatch):
    """As it does in fp16 nearly always. Memory that torch takes without filling it holds something, here."""
    monkeypatch.setattr(torch, "empty_like", lambda like, **_: torch.full_like(like, 7.0))
    networks = []
    for gpu in (False, True):
        network, optimizer = build(spec, gpu=gpu)
        before = copy.deepcopy(network)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
        step(network, optimizer, 0, scaler, factor=float("inf"))
        assert_alike(network, before)
        for number in range(1, 4):
            step(network, optimizer, number, scaler)
        networks.append(network)
    assert_alike(*networks)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("spec", SPECS, ids=NAMES)
def test_a_state_is_taken_over_from_the_other_kernels_and_the_own_stay_in_use(build, spec, gpu):
    """What a CPU or an earlier version wrote, which knew no fused kernels, a GPU goes on with, and the other way."""
    (first, writer), (second, reader) = build(spec, gpu=not gpu), build(spec, gpu=gpu)
    for number in range(2):
        step(first, writer, number)
    second.load_state_dict(first.state_dict())
    state = copy.deepcopy(writer.state_dict())
    if gpu:
        for group in state["param_groups"]:
            group["fused"] = None
    load_optimizer(reader, state)
    assert {bool(group["fused"]) for group in reader.param_groups} == {gpu}
    for number in range(2, 4):
        step(first, writer, number)
        step(second, reader, number)
    assert_alike(first, second)


def test_lamb_has_no_fused_kernel(build):
    network, optimizer = build(LambSpec(lr=0.1), gpu=True)
    step(network, optimizer, 0)
    state = copy.deepcopy(optimizer.state_dict())
    load_optimizer(optimizer, state)
    assert not getattr(optimizer, "_step_supports_amp_scaling", False)
