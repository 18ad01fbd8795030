"""Layer-wise decay is timm's, and attention has the layer of what it stands in."""

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay

from cbam_core.errors import SpecError
from cbam_core.networks import build_network
from cbam_core.networks.learning_rates import layers_of, lr_scales
from cbam_core.spec import ModelSpec


def network_of(backbone, attention="none"):
    with torch.device("meta"):
        return build_network(ModelSpec.model_validate({"backbone": backbone, "attention": attention}), 10)


def timms(network, layer_decay):
    """The factor of each weight as timm gives it, by name."""
    names = {weight: name for name, weight in network.named_parameters()}
    groups = param_groups_layer_decay(network, layer_decay=layer_decay)
    return {names[weight]: group["lr_scale"] for group in groups for weight in group["params"]}


@pytest.mark.parametrize(
    ("backbone", "name"),
    [("resnet18", "resnet18"), ("resnet50", "resnet50"), ("timm:convnext_atto", "convnext_atto")],
)
def test_the_factors_are_timms(backbone, name):
    with torch.device("meta"):
        theirs = timms(timm.create_model(name, num_classes=10), 0.7)
    assert lr_scales(network_of(backbone), layer_decay=0.7, attention=1) == pytest.approx(theirs)


@pytest.mark.parametrize(
    "backbone", ["resnet18", "mobilenet_v1", "cifar_resnet20", "timm:convnext_atto", "timm:resnet10t"]
)
@pytest.mark.parametrize("attention", ["cbam", "bam"])
def test_attention_changes_nothing_of_what_both_have(backbone, attention):
    plain, attentive = (network_of(backbone, kind) for kind in ("none", attention))
    before, after = layers_of(plain), layers_of(attentive)
    assert {name: after[name] for name in before} == before
    assert all(layer < max(before.values()) for name, layer in after.items() if name not in before), "none is a head"


def test_attention_is_of_the_layer_of_its_block_or_stage():
    layers = layers_of(network_of("resnet18", "cbam"))
    assert layers["layer2.1.attention.channel.fc1.weight"] == layers["layer2.1.conv1.weight"]
    layers = layers_of(network_of("resnet18", "bam"))
    assert layers["attention2.channel.0.weight"] == layers["layer2.1.conv1.weight"]


def test_the_factor_of_attention_is_beside_that_of_the_layer():
    scales = lr_scales(network_of("cifar_resnet20", "cbam"), layer_decay=0.5, attention=4)
    assert scales["layer3.2.conv1.weight"] == 0.5
    assert scales["layer3.2.attention.spatial.conv.weight"] == 2
    assert scales["fc.weight"] == 1


def test_where_they_say_nothing_they_are_refused():
    with pytest.raises(SpecError, match="attention_lr_scale"):
        lr_scales(network_of("cifar_resnet20", "simam"), layer_decay=None, attention=2)
    with pytest.raises(SpecError, match="layer_decay"):
        lr_scales(torch.nn.Linear(2, 2), layer_decay=0.5, attention=1)
