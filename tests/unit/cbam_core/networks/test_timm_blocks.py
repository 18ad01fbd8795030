"""Semantics 1: attention behind the blocks of timm's networks, where experiments before version 0.2 have it."""

import pytest
import torch

from cbam_core.errors import AttentionNotSupported
from cbam_core.explain import describe
from cbam_core.networks import build_network
from cbam_core.networks.timm_blocks import find_blocks
from cbam_core.spec import ModelSpec


def bare(name: str, attention: str, classes: int = 10, **fields):
    spec = {"backbone": f"timm:{name}", "attention": {"type": attention}, **fields}
    with torch.device("meta"):
        return build_network(ModelSpec.model_validate(spec), classes, semantics=1)


@pytest.mark.parametrize(
    ("name", "count", "stages"),
    [
        ("resnet18", 8, 4),
        ("convnext_atto", 12, 4),
        ("efficientnet_b0", 16, 5),
        ("regnetx_002", 13, 4),
        ("densenet121", 4, 4),
        ("vgg11", 6, 6),
    ],
)
def test_blocks_as_they_were_found(name, count, stages):
    blocks = find_blocks(name)
    assert len(blocks) == count
    assert max(block.stage for block in blocks) == stages
    assert len(describe(bare(name, "cbam"), (3, 224, 224)).attention) == count


def test_names_as_they_were():
    names = [site.name for site in describe(bare("resnet18", "bam"), (3, 224, 224)).attention]
    assert names == ["layer1.1.attention", "layer2.1.attention", "layer3.1.attention"]
    names = [site.name for site in describe(bare("resnet18", "se", stages=[4]), (3, 64, 64)).attention]
    assert names == ["layer4.0.attention", "layer4.1.attention"]
    assert "features.denseblock1.block.denselayer1.norm1.weight" in bare("densenet121", "se").state_dict()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("vit_tiny_patch16_224", "returns tokens N L C"),
        ("swin_tiny_patch4_window7_224", "channels last"),
        ("hrnet_w18_small", "returns a list"),
    ],
)
def test_what_was_refused_still_is(name, reason):
    with pytest.raises(AttentionNotSupported, match=reason):
        bare(name, "cbam")


def test_the_same_numbers_come_out():
    """Stored from the commit before there was a number: scores of two images, in training mode."""
    torch.manual_seed(5)
    spec = ModelSpec.model_validate({"backbone": "timm:test_resnet", "attention": {"type": "cbam"}})
    network = build_network(spec, 3, semantics=1)
    scores = network(torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64))
    stored = [-0.1587668, -0.1270346, -0.1068708, -0.1741927, 0.0376617, -0.0649066]
    assert scores.flatten().tolist() == pytest.approx(stored, abs=1e-5)
