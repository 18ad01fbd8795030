"""Converters against networks that others wrote: timm's ResNets with CBAM, and the authors' code, rebuilt here."""

from functools import partial

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers.cbam import CbamModule
from torch import nn

from cbam_core.attention import BAM, CBAM, create_attention
from cbam_core.errors import StateDictMismatch
from cbam_core.networks import build_network, convert_state_dict
from cbam_core.spec import ModelSpec


def network(backbone: str = "resnet18", attention: dict | None = None) -> nn.Module:
    made = build_network(
        ModelSpec.model_validate({"backbone": backbone, "attention": attention or {"type": "cbam"}}), 10
    )
    with torch.no_grad():
        for tensor in made.parameters():
            if tensor.ndim < 2:
                tensor.uniform_(0.5, 1)
    return made.eval()


class AuthorsCBAM(nn.Module):
    """The authors' module by the names their weights have: a reference of its own, one line per equation."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        mlp = [nn.Flatten(), nn.Linear(channels, channels // reduction), nn.ReLU()]
        self.ChannelGate = nn.ModuleDict({"mlp": nn.Sequential(*mlp, nn.Linear(channels // reduction, channels))})
        gate = nn.ModuleDict({"conv": nn.Conv2d(2, 1, 7, padding=3, bias=False), "bn": nn.BatchNorm2d(1)})
        self.SpatialGate = nn.ModuleDict({"spatial": gate})

    def forward(self, x):
        mlp, gate = self.ChannelGate["mlp"], self.SpatialGate["spatial"]
        pooled = [pool(x, x.shape[2:]) for pool in (F.avg_pool2d, F.max_pool2d)]
        x = x * torch.sigmoid(sum(mlp(p) for p in pooled))[:, :, None, None]
        maps = torch.cat([x.max(1)[0].unsqueeze(1), x.mean(1).unsqueeze(1)], 1)
        return x * torch.sigmoid(gate["bn"](gate["conv"](maps)))


def identical(first: dict, second: dict) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_timms_network_with_our_weights_gives_our_scores(backbone):
    ours = network(backbone)
    layer = partial(CbamModule, mlp_bias=True)
    theirs = timm.create_model(backbone, num_classes=10, block_args={"attn_layer": layer}).eval()
    theirs.load_state_dict(convert_state_dict(ours.state_dict(), source="ours", target="timm"))
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(theirs(x), ours(x), atol=1e-4, rtol=1e-4)


def test_se_is_timms_se():
    ours = create_attention("se", 32, reduction=4)
    theirs = timm.layers.SEModule(32, rd_channels=8)
    theirs.load_state_dict(convert_state_dict(ours.state_dict(), source="ours", target="timm"))
    x = torch.randn(2, 32, 5, 5)
    assert torch.allclose(theirs(x), ours(x), atol=1e-6)


def test_the_authors_module_with_our_weights_gives_our_output():
    ours = CBAM(32, 4).eval()
    nn.init.ones_(ours.spatial.norm.weight)
    theirs = AuthorsCBAM(32, 4).eval()
    theirs.load_state_dict(convert_state_dict(ours.state_dict(), source="ours", target="authors"))
    x = torch.randn(2, 32, 5, 5)
    assert torch.allclose(theirs(x), ours(x), atol=1e-6)


@pytest.mark.parametrize("layout", ["authors", "timm"])
@pytest.mark.parametrize("make", [network, lambda: CBAM(32), lambda: network("resnet50", {"type": "none"})])
def test_there_and_back_is_bit_identical(layout, make):
    state = make().state_dict()
    there = convert_state_dict(state, source="ours", target=layout)
    assert identical(convert_state_dict(there, source=layout, target="ours"), state)
    across = convert_state_dict(there, source=layout, target="timm" if layout == "authors" else "authors")
    assert identical(
        convert_state_dict(across, source="timm" if layout == "authors" else "authors", target="ours"), state
    )


def test_names_of_the_authors():
    """A site in a block, a site after a stage, and the prefix their training script writes."""
    names = convert_state_dict(network().state_dict(), source="ours", target="authors", prefix="module.")
    assert "module.layer1.0.cbam.ChannelGate.mlp.3.bias" in names
    assert "module.layer4.1.cbam.SpatialGate.spatial.bn.running_mean" in names
    assert identical(convert_state_dict(names, source="authors", target="ours"), network_state_like(names))
    bam = convert_state_dict(network("resnet18", {"type": "bam"}).state_dict(), source="ours", target="authors")
    assert "bam1.channel_att.gate_c.gate_c_fc_final.weight" in bam
    assert "bam3.spatial_att.gate_s.gate_s_conv_di_1.bias" in bam
    lone = BAM(16).state_dict()
    there = convert_state_dict(lone, source="ours", target="authors")
    assert identical(convert_state_dict(there, source="authors", target="ours"), lone)


def network_state_like(names: dict) -> dict:
    """Our names in our order, for weights that differ from ours by their names alone."""
    return dict(zip(network().state_dict(), names.values(), strict=True))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.pop("layer2.1.bn2.running_var"), r"1 weights missing, the first is layer2\.1\.bn2\.running_var"),
        (
            lambda s: s.pop("layer1.0.attention.channel.fc2.weight"),
            r"first is layer1\.0\.attention\.channel\.fc2\.weight",
        ),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("fc")], r"2 weights missing, the first is fc\.bias"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("layer3.0")], r"the first is layer3\.0\.bn1\.bias"),
        (lambda s: s.update({"blocks.0.attn.qkv.weight": torch.zeros(1)}), r"unexpected blocks\.0\.attn\.qkv\.weight"),
        (lambda s: s.update({"layer1.0.attention.alpha": torch.zeros(1)}), r"unexpected layer1\.0\.attention\.alpha"),
        (lambda s: s.clear(), "no weights at all"),
    ],
)
def test_wrong_files_name_what_is_wrong(spoil, message):
    state = dict(network().state_dict())
    spoil(state)
    with pytest.raises(StateDictMismatch, match=message):
        convert_state_dict(state, source="ours", target="timm")


def test_a_file_in_another_layout_than_said():
    state = convert_state_dict(network().state_dict(), source="ours", target="authors")
    with pytest.raises(StateDictMismatch, match=r"unexpected layer1\.0\.cbam.*layout timm"):
        convert_state_dict(state, source="timm", target="ours")


@pytest.mark.parametrize(("kind", "target"), [("se", "authors"), ("bam", "timm")])
def test_what_a_layout_has_no_place_for(kind, target):
    state = create_attention(kind, 32).state_dict()
    with pytest.raises(StateDictMismatch, match=f"layout {target} has no place for it"):
        convert_state_dict(state, source="ours", target=target)


def test_unknown_layouts():
    with pytest.raises(ValueError, match="unknown layout 'keras'"):
        convert_state_dict({}, source="keras", target="ours")
