"""Attention in a network: where it stands, what it costs, and that the rest of the network does not notice."""

import torch

from cbam_core.explain import describe
from cbam_core.networks import build_network
from cbam_core.spec import ModelSpec


def test_one_word_turns_a_network_into_its_attentive_twin():
    """The same spec with another word: the same layers, and one module at the end of every residual branch."""
    plain = build_network(ModelSpec(backbone="cifar_resnet20"), num_classes=10)
    spec = ModelSpec.model_validate({"backbone": "cifar_resnet20", "attention": {"type": "cbam", "reduction": 8}})
    attentive = build_network(spec, num_classes=10)
    added = set(attentive.state_dict()) - set(plain.state_dict())
    assert set(plain.state_dict()) < set(attentive.state_dict())
    assert all(".attention." in name for name in added)
    assert attentive(torch.randn(2, 3, 32, 32)).shape == (2, 10)


def test_what_cbam_costs_in_resnet_50():
    """A tenth more parameters, and almost no more arithmetic: the numbers of the paper's table."""
    with torch.device("meta"):  # shapes without memory: nothing is allocated, nothing computed
        plain = describe(build_network(ModelSpec(backbone="resnet50"), 1000), (3, 224, 224))
        spec = ModelSpec.model_validate({"backbone": "resnet50", "attention": {"type": "cbam"}})
        cbam = describe(build_network(spec, 1000), (3, 224, 224))
    assert (plain.parameters, cbam.parameters) == (25_557_032, 28_089_624)
    assert cbam.macs / plain.macs < 1.002
    assert len(cbam.attention) == 16  # one per block


def test_attention_only_where_it_is_asked_for():
    """`stages` puts attention into some stages and leaves the others plain."""
    spec = ModelSpec.model_validate({"backbone": "resnet18", "attention": {"type": "se"}, "stages": [3, 4]})
    with torch.device("meta"):
        sites = describe(build_network(spec, 10), (3, 64, 64)).attention
    assert [site.name for site in sites] == [f"layer{stage}.{block}.attention" for stage in (3, 4) for block in (0, 1)]
