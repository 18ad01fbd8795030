"""The networks: counts the paper prints or that follow from its formulas, where attention sits, how weights start."""

from itertools import pairwise

import pytest
import timm
import torch
import torchvision
from pydantic import ValidationError
from timm.layers import BatchNormAct2d
from torch import nn

from cbam_core.attention import BAM, CBAM, SE
from cbam_core.backbones import BACKBONES, WITH_PUBLISHED_WEIGHTS, stage_count
from cbam_core.errors import AttentionNotSupported, StateDictMismatch, UnknownBackbone
from cbam_core.explain import describe
from cbam_core.networks import build_network, synchronise_batch_norm
from cbam_core.networks.pretrained import fit_weights
from cbam_core.spec import ModelSpec


def model(backbone: str, attention: str = "none", **fields) -> ModelSpec:
    return ModelSpec.model_validate({"backbone": backbone, "attention": {"type": attention}, **fields})


def bare(spec: ModelSpec, classes: int = 1000) -> nn.Module:
    """The network on the meta device: its shapes without its memory."""
    with torch.device("meta"):
        return build_network(spec, classes)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("backbone", "plain", "se", "cbam"),
    [
        ("resnet18", 11_689_512, 11_778_592, 11_779_392),
        ("resnet50", 25_557_032, 28_088_024, 28_089_624),
        ("resnet101", 44_549_160, 49_326_872, 49_330_172),
        ("wrn18_1_5", 25_875_816, 26_074_716, 26_075_516),
        ("resnext50_32x4d", 25_028_904, 27_559_896, 27_561_496),
        ("mobilenet_v1", 4_231_976, 5_072_114, 5_074_714),
    ],
)
def test_parameters_counted_from_the_original_code(backbone, plain, se, cbam):
    assert [parameters(bare(model(backbone, kind))) for kind in ("none", "se", "cbam")] == [plain, se, cbam]


@pytest.mark.parametrize(
    ("spec", "millions"),
    [
        (model("resnet34"), 21.80),
        (model("resnet34", "cbam"), 21.96),
        (model("wrn18_2"), 45.62),
        (model("wrn18_2", "cbam"), 45.97),
        (model("resnext101_32x4d"), 44.18),
        (model("resnext101_32x4d", "cbam"), 48.96),
        (model("mobilenet_v1", width=0.7), 2.30),
        (model("mobilenet_v1", "cbam", width=0.7), 2.71),
    ],
)
def test_parameters_as_the_paper_prints_them(spec, millions):
    """Table 4 and 5, in millions to two decimals."""
    assert round(parameters(bare(spec)) / 1e6, 2) == millions


def test_other_counts_from_the_original_code():
    assert parameters(bare(model("resnet50", "bam"))) == 25_915_099
    assert parameters(bare(model("resnet50", stem="cifar"), 100)) == 23_705_252
    assert parameters(bare(model("resnet50", "cbam", stem="cifar"), 100)) == 26_237_844


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"])
def test_resnets_are_torchvisions(backbone):
    """Same weights, same scores: every layer sits where it should."""
    theirs = getattr(torchvision.models, backbone)()
    ours = build_network(model(backbone), 1000)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-4)


def test_resnext_is_timms():
    theirs = timm.create_model("resnext50_32x4d")
    ours = build_network(model("resnext50_32x4d"), 1000)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-4)
    with torch.device("meta"):
        assert parameters(timm.create_model("resnext101_32x4d")) == parameters(bare(model("resnext101_32x4d")))


@pytest.mark.parametrize("width", [1.0, 0.75])
def test_mobilenet_has_the_published_shapes(width):
    """Howard et al., table 1, layer by layer, written from the table."""
    channels = [int(c * width) for c in (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)]
    expected = 3 * channels[0] * 9 + 2 * channels[0]
    for before, after in pairwise(channels):
        expected += before * 9 + 2 * before + before * after + 2 * after
    expected += channels[-1] * 1000 + 1000
    network = bare(model("mobilenet_v1", width=width))
    assert parameters(network) == expected
    rows = {stage.name: stage.output_shape[1:] for stage in describe(network, (3, 224, 224)).stages}
    assert [rows[f"layer{stage}"] for stage in range(1, 6)] == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_resnets_have_the_published_size(depth, millions):
    """He et al. 2016, table 6, in millions as printed."""
    network = bare(model(f"cifar_resnet{depth}"), 10)
    assert parameters(network) / 1e6 == pytest.approx(millions, abs=0.05 if depth == 110 else 0.006)
    assert sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in network.modules()) == depth


def test_padded_shortcut_by_hand():
    """Option A: every second place, zeros behind the channels."""
    network = build_network(model("cifar_resnet20"), 10)
    x = torch.randn(1, 16, 4, 4)
    out = network.layer2[0].downsample(x)
    assert torch.equal(out[:, :16], x[:, :, [0, 2]][..., [0, 2]])
    assert out.shape == (1, 32, 2, 2)
    assert not out[:, 16:].any()


@pytest.mark.parametrize("kind", ["none", "se", "cbam"])
@pytest.mark.parametrize(
    ("backbone", "stride_in_1x1", "gmacs"),
    [
        ("resnet18", False, {"none": 1.814, "se": 1.814, "cbam": 1.815}),
        ("resnet50", True, {"none": 3.858, "se": 3.860, "cbam": 3.864}),
        ("resnet50", False, {"none": 4.089, "se": 4.092, "cbam": 4.096}),
        ("resnet101", True, {"none": 7.570, "se": 7.575, "cbam": 7.581}),
        ("resnext50_32x4d", True, {"none": 3.768, "se": 3.771, "cbam": 3.774}),
    ],
)
def test_multiply_adds_as_the_paper_prints_them(backbone, stride_in_1x1, gmacs, kind):
    network = bare(model(backbone, kind, stride_in_1x1=stride_in_1x1))
    assert round(describe(network, (3, 224, 224)).macs / 1e9, 3) == gmacs[kind]


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in ("resnet152", "cifar_resnet110")])
@pytest.mark.parametrize("kind", ["cbam", "bam"])
def test_attention_sits_in_every_stage_asked_for_and_in_no_other(backbone, kind):
    sites = {
        name: module
        for name, module in bare(model(backbone, kind, stages=[2]), 10).named_modules()
        if type(module) in (CBAM, BAM)
    }
    assert sites
    start = ("layer2.", "attention2") if kind == "bam" else ("layer2.",)
    assert all(name.startswith(start) for name in sites)
    everywhere = describe(bare(model(backbone, kind), 10), (3, 64, 64)).attention
    stages = {site.name.split(".")[0].removeprefix("layer").removeprefix("attention") for site in everywhere}
    last = stage_count(backbone)
    assert stages == {str(stage) for stage in range(1, last + (kind == "cbam"))}


def test_attention_is_the_last_thing_on_the_branch():
    """The shortcut is added to what CBAM returns: a branch that CBAM empties leaves the shortcut alone."""
    for backbone in ("resnet18", "resnet50"):
        block = build_network(model(backbone, "cbam", stem="cifar"), 10).layer1[1].eval()
        x = torch.randn(2, 64 if backbone == "resnet18" else 256, 8, 8)
        block.attention.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
        assert torch.equal(block(x), x.relu())


def test_he_rule_spares_the_gates():
    torch.manual_seed(0)
    network = build_network(model("resnet18", "cbam"), 10)
    for module in network.modules():
        if isinstance(module, CBAM):
            fan_in = module.channel.fc2.in_features
            assert module.channel.fc2.weight.abs().max() <= fan_in**-0.5
            assert module.spatial.norm.weight.item() == 0
    conv = network.layer3[0].conv2
    assert conv.weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)
    assert all(bn.weight.eq(1).all() for name, bn in network.named_modules() if name.endswith("bn2"))


@pytest.mark.parametrize("backbone", ["cifar_resnet20", "mobilenet_v1", "resnet18", "timm:mobilenetv3_small_050"])
@pytest.mark.parametrize("kind", ["none", "cbam", "bam", "simam"])
def test_trains(backbone, kind):
    """A few steps on one batch lower its loss, and every weight takes part."""
    torch.manual_seed(0)
    stem = {"stem": "cifar"} if backbone in ("mobilenet_v1", "resnet18") else {}
    network = build_network(model(backbone, kind, **stem), 5, in_channels=1)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    x, y = torch.randn(8, 1, 32, 32), torch.arange(8) % 5
    losses = []
    for _ in range(6):
        losses.append(nn.functional.cross_entropy(network(x), y))
        optimizer.zero_grad()
        losses[-1].backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        optimizer.step()
    assert losses[-1] < 0.8 * losses[0]


def test_same_seed_same_network():
    def weights():
        torch.manual_seed(7)
        return build_network(model("cifar_resnet20", "cbam"), 10).state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_timm_does_not_have():
    with pytest.raises(UnknownBackbone, match="timm:no_such_net"):
        bare(model("timm:no_such_net"))
    with pytest.raises(AttentionNotSupported, match="stages 1 to 4; `stages` names 5"):
        bare(model("timm:resnet18", "se", stages=[5]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": "resnet19"}, "unknown backbone"),
        ({"backbone": "timm:../etc"}, "unknown backbone"),
        ({"backbone": "cifar_resnet20", "stem": "cifar"}, "stem of its own"),
        ({"backbone": "timm:resnet18", "stem": "cifar"}, "stem of its own"),
        ({"backbone": "resnet18", "stride_in_1x1": True}, "bottleneck"),
        ({"backbone": "resnet18", "width": 0.5}, "one width"),
        ({"backbone": "resnet18", "stages": [1]}, "there is none"),
        ({"backbone": "resnet18", "attention": {"type": "se"}, "stages": [5]}, "from 1 to 4"),
        ({"backbone": "resnet18", "attention": {"type": "se"}, "stages": [1, 1]}, "distinct"),
        ({"backbone": "timm:resnet18", "attention": {"type": "se"}, "stages": []}, "from 1;"),
        ({"backbone": "wrn18_2", "pretrained": True}, "no published weights"),
        ({"backbone": "resnet50", "pretrained": True, "stem": "cifar"}, "imagenet stem"),
        ({"backbone": "resnet50", "pretrained": True, "stride_in_1x1": True}, "imagenet stem"),
    ],
)
def test_impossible_models_are_no_specs(fields, message):
    with pytest.raises(ValidationError, match=message):
        ModelSpec.model_validate(fields)


def test_every_field_of_the_model_changes_the_network():
    def shape(**fields):
        return {name: tuple(p.shape) for name, p in bare(ModelSpec.model_validate(fields)).named_parameters()}

    base = {"backbone": "resnet50", "attention": {"type": "se"}}
    for change in ({"backbone": "resnet101"}, {"attention": {"type": "cbam"}}, {"stages": [2]}, {"stem": "cifar"}):
        assert shape(**base) != shape(**{**base, **change})
    assert shape(backbone="mobilenet_v1") != shape(backbone="mobilenet_v1", width=0.5)
    strided = bare(model("resnet50", stride_in_1x1=True)).layer2[0]
    assert (strided.conv1.stride, strided.conv2.stride) == ((2, 2), (1, 1))


def test_published_weights_fit_with_attention_and_another_head():
    """All but the gates and the head is taken over; what does not fit is named."""
    published = timm.create_model("resnet18").state_dict()
    network = build_network(model("resnet18", "cbam"), 7)
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fit_weights(network, published)
    loaded = network.state_dict()
    assert torch.equal(loaded["layer4.1.conv2.weight"], published["layer4.1.conv2.weight"])
    for name in ("fc.weight", "layer1.0.attention.channel.fc1.weight"):
        assert torch.equal(loaded[name], fresh[name])
    missing = dict(published)
    del missing["layer2.0.bn1.weight"]
    with pytest.raises(StateDictMismatch, match=r"1 weights missing, the first is layer2\.0\.bn1\.weight"):
        fit_weights(network, missing)
    with pytest.raises(StateDictMismatch, match="unexpected, the first is layer9"):
        fit_weights(network, {**published, "layer9.weight": torch.zeros(1)})
    for name in ("bn1.bias", "conv1.weight"):
        with pytest.raises(StateDictMismatch, match=f"of another shape, the first is {name}"):
            fit_weights(network, {**published, name: torch.zeros(1)})


@pytest.mark.parametrize("backbone", sorted(WITH_PUBLISHED_WEIGHTS))
def test_timm_publishes_what_we_promise(backbone):
    cfg = timm.get_pretrained_cfg(backbone)
    assert cfg.has_weights
    with torch.device("meta"):
        theirs = timm.create_model(backbone).state_dict()
    assert {name: t.shape for name, t in theirs.items()} == {
        name: t.shape for name, t in bare(model(backbone)).state_dict().items()
    }
    assert bare(model(backbone, pretrained=True))  # no download for a preview


def test_synchronised_norms_stop_at_attention():
    network = synchronise_batch_norm(bare(model("resnet18", "cbam"), 10))
    norms = {name: type(module) for name, module in network.named_modules() if hasattr(module, "running_var")}
    assert {kind for name, kind in norms.items() if ".spatial." in name} == {nn.BatchNorm2d}
    assert {kind for name, kind in norms.items() if ".spatial." not in name} == {nn.SyncBatchNorm}
    assert isinstance(synchronise_batch_norm(nn.BatchNorm2d(3)), nn.SyncBatchNorm)
    assert isinstance(synchronise_batch_norm(SE(16)), SE)


def test_a_synchronised_norm_keeps_the_activation_that_timm_puts_into_it():
    network = build_network(model("timm:mobilenetv3_small_050"), 10, 3).eval()
    images = torch.randn(2, 3, 32, 32)
    before = network(images)
    synchronised = synchronise_batch_norm(network)
    assert not any(type(module) is BatchNormAct2d for module in synchronised.modules())
    torch.testing.assert_close(synchronised(images), before)


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "mobilenet_v1"])
@pytest.mark.parametrize("reduction", [4, 16])
def test_cbam_adds_what_its_formula_says(backbone, reduction):
    """Per block 2 C C/r + C/r + C for the MLP, 98 + 2 for the spatial gate, nothing else."""
    spec = {"backbone": backbone, "attention": {"type": "cbam", "reduction": reduction}}
    network = bare(ModelSpec.model_validate(spec))
    widths = [
        list(block.children())[-3].num_features  # the last norm of the branch
        for stage in network.stages
        for block in getattr(network, f"layer{stage}")
    ]
    added = sum(2 * c * (c // reduction) + c // reduction + c + 100 for c in widths)
    assert parameters(network) - parameters(bare(model(backbone))) == added
