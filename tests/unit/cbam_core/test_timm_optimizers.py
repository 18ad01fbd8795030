"""timm's optimisers by `timm:NAME`: our tables against the timm that is installed, and what is refused by name."""

import inspect
import subprocess
import sys
import typing

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from torch import nn

from cbam_core.errors import SpecError
from cbam_core.spec import OptimizerSpec, TimmOptimizerSpec, make_spec
from cbam_core.timm_optimizer import build_timm_optimizer, check_timm_optimizer
from cbam_core.timm_options import OPTIMIZERS, REFUSED, TimmType
from tests.support.specs import spec_dict

OWN_FIELDS = {"self", "params", "lr", "weight_decay", "momentum"}
NO_OPTIONS = {  # how a step is computed, and what is no number that a recipe would say
    *("foreach", "fused", "capturable", "differentiable", "maximize", "verbose", "momentum_dtype"),
    "adamw_lr",  # deprecated
    "warmup_init",  # of Adafactor: only without an lr
}


def taken(name: str) -> set[str]:
    return set(inspect.signature(get_optimizer_class(name, bind_defaults=False).__init__).parameters)


def spec_of(name: str, **fields) -> TimmOptimizerSpec:
    return TimmOptimizerSpec.model_validate({"type": f"timm:{name}", "lr": 0.01} | fields)


def complaint(optimizer: object) -> str:
    with pytest.raises(SpecError) as error:
        make_spec(spec_dict(train={"epochs": 2, "optimizer": optimizer}), source="spec")
    return str(error.value)


def test_every_name_of_timms_may_be_used_or_is_refused_with_a_reason():
    assert set(OPTIMIZERS) | set(REFUSED) == set(list_optimizers())
    assert not set(OPTIMIZERS) & set(REFUSED)
    assert typing.get_args(TimmType) == tuple(f"timm:{name}" for name in sorted(OPTIMIZERS))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_options_are_the_arguments_of_its_class(name):
    assert set(OPTIMIZERS[name].options) == taken(name) - OWN_FIELDS - NO_OPTIONS
    assert OPTIMIZERS[name].takes_momentum == ("momentum" in taken(name))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_steps_as_from_timms_own_factory_and_remembers_as_much_as_the_preview_says(name):
    steps, weights = (
        [],
        [torch.linspace(-1, 1, size).reshape(shape) for size, shape in ((4608, (16, 32, 3, 3)), (8, (8,)))],
    )
    for make in (
        lambda groups: build_timm_optimizer(spec_of(name, weight_decay=0.1), groups),
        lambda groups: create_optimizer_v2(groups, name, lr=0.01, weight_decay=0.1),
    ):
        parameters = [nn.Parameter(weight.clone()) for weight in weights]
        optimizer = make([{"params": parameters}])
        for step in range(3):
            for parameter in parameters:
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step))
            optimizer.step()
        steps.append([parameter.detach() for parameter in parameters])
    for ours, theirs, before in zip(*steps, weights, strict=True):
        assert ours.equal(theirs)
        assert not ours.equal(before)
    remembered = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    slots = sum(value.numel() * value.element_size() for value in remembered if value.numel() > 1) / 4 / (4608 + 8)
    assert OPTIMIZERS[name].slots - 1 < slots < OPTIMIZERS[name].slots + 0.1


@pytest.mark.parametrize(
    ("fields", "argument", "value"),
    [
        ({"type": "timm:muon", "momentum": 0.5}, "momentum", 0.5),
        ({"type": "timm:sgdw", "momentum": 0.5}, "momentum", 0.5),
        ({"type": "timm:sgdw"}, "momentum", 0.9),
        ({"type": "timm:lion", "options": {"betas": [0.5, 0.6]}}, "betas", (0.5, 0.6)),
        ({"type": "timm:clion"}, "caution", True),
        ({"type": "timm:lamb", "options": {"max_grad_norm": None}}, "max_grad_norm", None),
        ({"type": "timm:adan", "options": {"betas": [0.5, 0.6, 0.7], "no_prox": True}}, "betas", (0.5, 0.6, 0.7)),
    ],
)
def test_what_the_spec_says_arrives_at_the_optimiser(fields, argument, value):
    spec = TypeAdapter(OptimizerSpec).validate_python(fields | {"lr": 0.02, "weight_decay": 0.3})
    (group,) = build_timm_optimizer(spec, [{"params": [nn.Parameter(torch.ones(2, 2))]}]).param_groups
    assert (group["lr"], group["weight_decay"], group[argument]) == (0.02, 0.3, value)


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ({"type": "timm:lyon", "lr": 1.0}, "/train/optimizer: unknown optimiser 'timm:lyon' (did you mean timm:lion"),
        (
            {"type": "timm:resnet18", "lr": 1.0},
            "unknown optimiser 'timm:resnet18'; known are sgd, adamw, lamb and timm:",
        ),
        ({"type": "sdg"}, "unknown optimiser 'sdg' (did you mean sgd"),
        ({"type": 7}, "unknown optimiser '7'"),
        ({"type": "timm:fusedadam", "lr": 1.0}, "timm:fusedadam cannot be used: it needs NVIDIA's apex"),
        ({"type": "timm:bnblion8bit", "lr": 1.0}, "it needs bitsandbytes"),
        ({"type": "timm:adahessian", "lr": 1.0}, "second derivatives"),
        ({"type": "timm:kron", "lr": 1.0}, "resumed"),
        ({"type": "timm:lookahead_lion", "lr": 1.0}, "slow weights"),
        ({"type": "timm:lion"}, "/train/optimizer/lr: Field required"),
        ({"type": "timm:lion", "lr": 0.0}, "/train/optimizer/lr: Input should be greater than 0"),
        ({"type": "timm:lion", "lr": 1.0, "momentum": 0.9}, "/train/optimizer/momentum: timm:lion takes no momentum"),
        (
            {"type": "timm:lion", "lr": 1.0, "options": {"beta": [0.9, 0.99]}},
            "/train/optimizer/options: timm:lion takes no 'beta' (did you mean betas?); it takes betas, caution, corr",
        ),
        ({"type": "timm:sgd", "lr": 1.0, "options": {"foreach": True}}, "timm:sgd takes no 'foreach'"),
        ({"type": "timm:sgd", "lr": 1.0, "options": {"lr": 2.0}}, "timm:sgd takes no 'lr'"),
        (
            {"type": "timm:lion", "lr": 1.0, "optoins": {}},
            "/train/optimizer/optoins: there is no such field (did you mean opt",
        ),
        (
            {"type": "timm:lion", "lr": 1.0, "options": {"betas": {}}},
            "/train/optimizer/options/betas: an option is a number",
        ),
        (
            {"type": "timm:lion", "lr": 1.0, "options": {"betas": [0.9, float("inf")]}},
            "options/betas: an option is a numb",
        ),
        (
            {"type": "timm:adam", "lr": 1.0, "options": {"eps": 10**400}},
            "/train/optimizer/options/eps: an option is a numb",
        ),
    ],
)
def test_what_there_is_not_is_refused_by_name_without_loading_torch(optimizer, words):
    assert words in complaint(optimizer)
    assert len(complaint(optimizer).splitlines()) == 1


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"type": "timm:lion", "options": {"betas": [0.9, 1.5]}}, "timm:lion cannot train with lr=0.01.*betas=.*1.5"),
        ({"type": "timm:lion", "options": {"betas": [0.9]}}, "timm:lion cannot train"),
        ({"type": "timm:adan", "options": {"betas": [0.9, 0.99]}}, "timm:adan cannot train"),
        ({"type": "timm:adam", "options": {"eps": "small"}}, "timm:adam cannot train"),
        ({"type": "timm:sgd", "momentum": 0.0, "options": {"nesterov": True}}, "(?i)nesterov.*momentum"),
        ({"type": "timm:muon", "options": {"algo": "nothing"}}, "timm:muon cannot train"),
    ],
)
def test_values_that_an_optimiser_refuses_are_found_before_the_training(fields, words):
    spec = TimmOptimizerSpec.model_validate({"lr": 0.01} | fields)
    for act in (
        check_timm_optimizer,
        lambda one: build_timm_optimizer(one, [{"params": [nn.Parameter(torch.ones(2))]}]),
    ):
        with pytest.raises(SpecError, match=words):
            act(spec)


def test_a_spec_survives_its_way_through_json():
    spec = spec_of("adan", options={"betas": [0.9, 0.8, 0.7], "no_prox": True, "eps": 1e-6}, weight_decay=0.1)
    assert TimmOptimizerSpec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValidationError):
        spec.lr = 1.0


def test_specs_of_timms_optimisers_are_read_without_torch():
    code = (
        "import sys; from cbam_core.spec import TimmOptimizerSpec\n"
        "TimmOptimizerSpec(type='timm:lion', lr=1e-3, options={'betas': (0.9, 0.95)})\n"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
