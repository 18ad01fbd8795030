"""Attention on the branches of timm's networks: where it stands, that it runs once, that gradients reach the stem."""

import copy
import pickle
from collections import Counter

import pytest
import timm
import torch
from torch import nn

from cbam_core.attention import CBAM, Attention
from cbam_core.errors import AttentionNotSupported
from cbam_core.explain import describe
from cbam_core.explain.cost import attention_names
from cbam_core.networks import build_network, synchronise_batch_norm
from cbam_core.networks.inner_attention import inner_attention
from cbam_core.networks.timm_sites import find_sites
from cbam_core.spec import ModelSpec
from tests.unit.cbam_core.networks.timm_names import QUICK, REFUSED, REST, image_size

LONG = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)]


def model(name: str, attention: str = "none", **fields) -> ModelSpec:
    return ModelSpec.model_validate({"backbone": f"timm:{name}", "attention": {"type": attention}, **fields})


def bare(spec: ModelSpec) -> nn.Module:
    with torch.device("meta"):
        return build_network(spec, 10)


def stem_gradient(network: nn.Module, size: int) -> float:
    """The norm of the gradient at the first convolution, in training mode, for two images."""
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():
            nn.init.trunc_normal_(module.weight, std=0.02)  # a head that starts at zero hands no gradient on
    nn.functional.cross_entropy(network.train()(images), torch.tensor([0, 1])).backward()
    stem = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    return stem.weight.grad.norm().item()


def test_the_list_is_long():
    assert len({*QUICK, *REST, *REFUSED}) > 140
    assert len({*QUICK, *REST}) >= 100


def counted_calls(attached: dict[str, nn.Module]) -> Counter[str]:
    """How often each of the modules runs from now on."""
    calls: Counter[str] = Counter()
    for key, module in attached.items():
        module.register_forward_hook(lambda *_, key=key: calls.update([key]))
    return calls


@pytest.mark.parametrize("kind", ["se", "cbam"])
@pytest.mark.parametrize("name", LONG)
def test_each_site_runs_once_and_gradients_reach_the_stem(name, kind):
    size, sites = image_size(name), find_sites(name)
    plain = stem_gradient(build_network(model(name), 10, seed=1), size)
    network = build_network(model(name, kind), 10, seed=1)
    attached = {key: network.get_submodule(key) for key in attention_names(network)}
    calls = counted_calls(attached)
    assert 1e-2 < stem_gradient(network, size) / plain < 1e2
    assert len(attached) == len(sites)
    assert calls == Counter(list(attached)), "each runs once"
    shown = describe(bare(model(name, kind)), (3, size, size)).attention
    assert [site.name for site in shown] == list(attached), "the preview shows what the network has"
    assert sorted(site.channels for site in shown) == sorted(site.feature.channels for site in sites)


@pytest.mark.parametrize("name", LONG)
def test_without_attention_it_is_timms_own(name):
    ours = build_network(model(name), 10, seed=1).eval()
    theirs = timm.create_model(name, num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(1, 3, image_size(name), image_size(name))
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images))


@pytest.mark.parametrize("name", [name for name in QUICK if name != "mobilenetv3_small_050"])
def test_attention_renames_nothing(name):
    plain, attentive = bare(model(name)).state_dict(), bare(model(name, "cbam")).state_dict()
    assert set(plain) < set(attentive)
    assert all(plain[key].shape == attentive[key].shape for key in plain)


@pytest.mark.parametrize("name", [*list(REFUSED)[:4], "vgg11", "dpn48b"])
def test_what_cannot_carry_attention_says_why(name):
    with pytest.raises(AttentionNotSupported, match=f"timm:{name} cannot carry attention: .*{REFUSED[name]}"):
        bare(model(name, "cbam"))


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_all_that_is_refused_says_why(name):
    with pytest.raises(AttentionNotSupported, match=REFUSED[name]):
        find_sites(name)


@pytest.mark.parametrize(
    ("name", "places", "first"),
    [
        ("resnet18", {"se": 8}, "layer1.0.se"),
        ("seresnet18", {"drop_path": 8}, "layer1.0.drop_path"),
        ("convnext_atto", {"drop_path": 12}, "stages.0.blocks.0.drop_path"),
        ("regnetx_002", {"se": 13}, "s1.b1.se"),
        ("densenet121", {"output": 4}, "features.denseblock1"),
        ("vgg11_bn", {"output": 6}, None),
        ("repvit_m1", {"branch": 20}, "stages.0.blocks.0.channel_mixer"),
        ("hrnet_w18_small", {"se": 23}, "layer1.0.se"),
        ("selecsls42", {"output": 6}, "features.0.conv6"),
        ("test_mambaout", {"drop_path": 6}, "stages.0.blocks.0.drop_path"),
        ("swin_tiny_patch4_window7_224", {"branch": 12}, "layers.0.blocks.0.drop_path1"),
        ("convmixer_768_32", {"branch": 32}, "blocks.0.0.fn"),
    ],
)
def test_where_attention_goes(name, places, first):
    """Read from timm's code: the last thing on each branch that SE or stochastic depth would touch too."""
    sites = find_sites(name)
    assert Counter(site.place for site in sites) == places
    assert first in (None, sites[0].module)


@pytest.mark.parametrize("name", ["test_resnet", "convnext_atto", "dla46x_c", "repvit_m1", "test_mambaout"])
def test_the_shortcut_goes_around_it(name):
    """With every branch emptied by its attention, the image still changes the scores."""
    network = build_network(model(name, "cbam"), 10, seed=1).eval()
    attached = [module for module in network.modules() if isinstance(module, CBAM)]
    for module in attached:
        module.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
    first, second = torch.randn(2, 3, 64, 64).chunk(2)
    with torch.no_grad():
        assert not torch.equal(network(first), network(second))


@pytest.mark.parametrize("name", ["convnext_atto", "densenet121", "regnetx_002", "test_mambaout", "cspnext_tiny"])
def test_attention_takes_effect_and_survives_a_copy(name):
    network, plain = build_network(model(name, "gct"), 10, seed=1), build_network(model(name), 10, seed=1)
    with torch.no_grad():
        for module in plain.modules():  # branches that start at zero would hide it
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
    network.load_state_dict(plain.state_dict(), strict=False)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network(images), plain(images))  # GCT starts as the identity
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Attention):
                module.beta.copy_(torch.linspace(-3, 3, len(module.beta)))
    attended = network(images)
    assert not torch.equal(attended, plain(images))
    assert torch.equal(pickle.loads(pickle.dumps(copy.deepcopy(network)))(images), attended)


def test_a_synchronised_norm_keeps_the_attention_behind_it():
    network = build_network(model("dla46x_c", "cbam"), 10, seed=1).eval()
    images = torch.randn(1, 3, 64, 64)
    before, calls = network(images), Counter()
    synchronised = synchronise_batch_norm(network).eval()
    for module in synchronised.modules():
        if isinstance(module, CBAM):
            module.register_forward_hook(lambda *_: calls.update(["run"]))
    torch.testing.assert_close(synchronised(images), before)
    assert calls["run"] == 12


def test_bam_stands_between_the_stages():
    names = [site.name for site in describe(bare(model("resnet18", "bam")), (3, 224, 224)).attention]
    assert names == ["layer1.1.attention", "layer2.1.attention", "layer3.1.attention"]
    names = [site.name for site in describe(bare(model("test_mambaout", "bam")), (3, 224, 224)).attention]
    assert len(names) == 3


def test_stages_choose_blocks():
    names = [site.name for site in describe(bare(model("resnet18", "se", stages=[4])), (3, 64, 64)).attention]
    assert names == ["layer4.0.se", "layer4.1.se"]


class Opaque(nn.Module):
    """A network whose layers cannot be told apart: one convolution, called by nobody's name."""

    def __init__(self, num_classes: int, in_chans: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_classes, in_chans, 1, 1))
        self.feature_info = []
        self.pretrained_cfg = {"input_size": (3, 8, 8)}

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight).mean((2, 3))


def test_a_network_without_blocks_says_so(monkeypatch):
    monkeypatch.setattr(timm, "create_model", lambda _name, num_classes, in_chans, **_: Opaque(num_classes, in_chans))
    with pytest.raises(AttentionNotSupported, match="no blocks that can be told apart"):
        bare(model("opaque", "cbam"))


@pytest.mark.parametrize(
    ("name", "count"), [("efficientnet_b0", 16), ("seresnet18", 8), ("legacy_seresnet18", 8), ("resnet18", 0)]
)
def test_attention_inside_is_counted_and_ours_is_not(name, count):
    assert inner_attention(bare(model(name))) == count
    assert inner_attention(bare(model(name, "global_context"))) == count
