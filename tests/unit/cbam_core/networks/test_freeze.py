"""What is frozen is named by modules, or is the backbone; a name of nothing is refused."""

import pytest

from cbam_core.errors import SpecError
from cbam_core.networks import build_network
from cbam_core.networks.parts import freeze, train_mode
from cbam_core.spec import ModelSpec


def network_of(backbone="cifar_resnet20", attention="cbam"):
    return build_network(ModelSpec.model_validate({"backbone": backbone, "attention": attention}), 10)


def learning(network):
    return {name for name, weight in network.named_parameters() if weight.requires_grad}


@pytest.mark.parametrize(
    ("backbone", "head", "site"),
    [
        ("cifar_resnet20", "fc.", ".attention."),
        ("timm:regnetx_002", "head.fc.", ".se."),
        ("timm:convnext_atto", "head.fc.", ".attention."),
    ],
)
def test_the_backbone_is_all_but_head_and_attention(backbone, head, site):
    network = network_of(backbone)
    freeze(network, ["backbone"])
    assert learning(network) == {
        name for name, _ in network.named_parameters() if name.startswith(head) or site in name
    }


def test_a_name_is_of_a_whole_module():
    network = network_of()
    freeze(network, ["layer1", "layer2.0.conv1"])
    frozen = {name for name, _ in network.named_parameters()} - learning(network)
    assert frozen == {
        name for name, _ in network.named_parameters() if name.startswith("layer1.") or name == "layer2.0.conv1.weight"
    }


def test_a_frozen_norm_keeps_its_statistics_and_others_do_not():
    network = network_of()
    freeze(network, ["backbone"])
    train_mode(network)
    assert not network.bn1.training
    assert not network.layer1[0].bn2.training
    assert network.layer1[0].attention.spatial.norm.training
    assert network.training


def test_nothing_and_everything_are_refused():
    with pytest.raises(SpecError, match=r"no weights in a module layer9 \(did you mean layer"):
        freeze(network_of(), ["layer9"])
    with pytest.raises(SpecError, match="nothing is left to learn"):
        freeze(network_of(attention="none"), ["backbone", "fc"])
