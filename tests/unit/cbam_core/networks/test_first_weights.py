"""First weights: a function of the seed and the parameter's name, so that networks share those of shared modules."""

import pytest
import torch
from torch import nn

from cbam_core.attention import Attention
from cbam_core.networks import build_network
from cbam_core.networks.first_weights import build_seeded, parameter_names
from cbam_core.networks.timm_sites import find_sites
from cbam_core.spec import ModelSpec

BACKBONES = ["cifar_resnet20", "resnet18", "mobilenet_v1", "timm:regnetx_002", "timm:convnext_atto"]


def model(backbone: str, attention: str = "none", **fields) -> ModelSpec:
    return ModelSpec.model_validate({"backbone": backbone, "attention": {"type": attention}, **fields})


def weights(spec: ModelSpec, classes: int = 10, **options) -> dict[str, torch.Tensor]:
    return build_network(spec, classes, **options).state_dict()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_networks_of_one_seed_share_the_weights_of_all_shared_modules(backbone):
    plain = weights(model(backbone), seed=5)
    for kind in ("se", "cbam", "simam", "bam"):
        attentive = weights(model(backbone, kind), seed=5)
        assert set(plain) <= set(attentive)
        assert all(torch.equal(plain[name], attentive[name]) for name in plain), kind


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_head_of_another_width_leaves_the_backbone_as_it_is(backbone):
    ten, seven = weights(model(backbone, "cbam"), 10, seed=5), weights(model(backbone, "cbam"), 7, seed=5)
    same = [name for name in ten if ten[name].shape == seven[name].shape]
    assert len(same) == len(ten) - 2
    assert all(torch.equal(ten[name], seven[name]) for name in same)


def test_stages_share_the_attention_they_have_in_common():
    some, every = weights(model("resnet18", "cbam", stages=[3]), seed=5), weights(model("resnet18", "cbam"), seed=5)
    assert any("attention" in name for name in some)
    assert all(torch.equal(some[name], every[name]) for name in some)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_rules_are_those_of_an_unseeded_network(backbone):
    """What is drawn at random there is drawn here, with the same spread, and no two parameters alike."""
    torch.manual_seed(0)
    plain = build_network(model(backbone, "cbam"), 10)
    seeded = dict(build_network(model(backbone, "cbam"), 10, seed=5).named_parameters())
    kept = []
    for name, parameter in plain.named_parameters():
        if parameter.numel() > 64:
            assert seeded[name].std().item() == pytest.approx(parameter.std().item(), rel=0.4, abs=1e-9)
        if torch.equal(parameter, seeded[name]):
            assert parameter.unique().numel() == 1, f"{name} is not seeded"
        else:
            kept.append(seeded[name].flatten()[:8].tolist())
    assert len(kept) == len({tuple(values) for values in kept})


def test_the_seed_is_all_that_matters_and_the_global_generator_stays():
    torch.manual_seed(1)
    first = weights(model("cifar_resnet20", "cbam"), seed=5)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    again, other = weights(model("cifar_resnet20", "cbam"), seed=5), weights(model("cifar_resnet20", "cbam"), seed=6)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


def test_without_a_seed_the_global_generator_decides():
    torch.manual_seed(1)
    first = weights(model("cifar_resnet20"))
    torch.manual_seed(1)
    again = weights(model("cifar_resnet20"))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["conv1.weight"], weights(model("cifar_resnet20"))["conv1.weight"])


@pytest.mark.parametrize(
    ("backbone", "name", "expected"),
    [
        ("cifar_resnet20", "conv1.weight", [-0.170494, 0.0985412, 0.0630233]),
        ("cifar_resnet20", "layer2.1.attention.channel.fc1.weight", [-0.046191, 0.0256292, -0.1331816]),
        ("cifar_resnet20", "fc.weight", [-0.0170219, -0.109327, 0.0240833]),
        ("timm:regnetx_002", "stem.conv.weight", [-0.0027833, 0.0092708, 0.0915652]),
        ("timm:regnetx_002", "s3.b2.attention.channel.fc1.weight", [-0.0113749, 0.0704158, 0.0108426]),
        ("timm:regnetx_002", "head.fc.weight", [-0.003841, -0.0025082, -0.006873]),
    ],
)
def test_the_first_semantics_draws_as_it_always_did(backbone, name, expected):
    """Stored from the commit before there was a number: torch.manual_seed(seed_of(5, "weights")), then the network."""
    state = weights(model(backbone, "cbam"), semantics=1, seed=5)
    assert state[name].flatten()[:3].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_first_build_of_a_process_is_like_all_others():
    """The sites are looked for, and remembered, outside of what is seeded."""
    find_sites.cache_clear()
    first = weights(model("timm:test_resnet", "gct"), seed=5)
    again = weights(model("timm:test_resnet", "gct"), seed=5)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_meta_network_has_no_weights_to_seed():
    with torch.device("meta"):
        network = build_network(model("cifar_resnet20", "cbam"), 10, seed=5)
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert sum(isinstance(module, Attention) for module in network.modules()) > 9


class Rejecting(nn.Module):
    """Its weights are drawn again until none is negative, beside a parameter that is replaced."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.before = nn.Sequential(*(nn.Linear(3, 3) for _ in range(before)))
        self.weight = nn.Parameter(torch.empty(40))
        if self.weight.device.type != "meta":
            self.weight.data.normal_()
            while self.weight.lt(0).any():
                again = torch.empty(40).normal_()
                self.weight.data = torch.where(self.weight.lt(0), again, self.weight)
        self.head = nn.Linear(3, 9)
        self.head = nn.Linear(3, 2)


def test_draws_that_reject_values_belong_to_the_parameter():
    def made(before):
        def build():
            return Rejecting(before)

        return build_seeded(build, parameter_names(build), 5).state_dict()

    few, many = made(1), made(4)
    assert few["weight"].ge(0).all()
    assert all(torch.equal(few[name], many[name]) for name in few)


def test_a_network_that_differs_on_the_meta_device_is_refused():
    def build():
        return nn.Linear(2, 2, bias=torch.get_default_device().type == "meta")

    with pytest.raises(RuntimeError, match="other parameters on the meta device"):
        build_seeded(build, parameter_names(build), 5)
