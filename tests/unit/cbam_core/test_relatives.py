"""The relatives of CBAM against independent references: timm's modules, or the paper's equation written once more."""

import math

import pytest
import timm.layers as timm_layers
import torch
import torch.nn.functional as F
from timm.layers.coord_attn import CoordAttn
from timm.layers.global_context import GlobalContext as TimmGlobalContext
from torch import nn

from cbam_core.attention import BAM, ECA, GCT, SCSE, SE, Coordinate, GlobalContext, SimAM, Triplet
from cbam_core.attention.eca import adaptive_kernel


def lively(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.normal_(0, 0.5)
    return module.to(torch.float64)


def same(ours: nn.Module, theirs: nn.Module, names: dict[str, str], *, training: bool = True) -> None:
    """Copies the weights of `ours` to `theirs` by `names`, then compares output and input gradient in fp64."""
    state = ours.state_dict()
    target = theirs.state_dict()
    for name, tensor in state.items():
        layer, _, leaf = name.rpartition(".")
        twin = f"{names[layer]}.{leaf}"
        target[twin] = tensor.reshape(target[twin].shape)
    assert len(target) == len(state)
    theirs.to(torch.float64).load_state_dict(target)
    x = torch.randn(3, 16, 5, 6, dtype=torch.float64)
    weight = torch.randn_like(x)
    results = []
    for module in (ours.train(training), theirs.train(training)):
        image = x.clone().requires_grad_()
        out = module(image)
        (out * weight).sum().backward()
        results.append((out, image.grad))
    for mine, their in zip(*results, strict=True):
        assert torch.allclose(mine, their, rtol=1e-12, atol=1e-12)


def test_se_is_timms():
    same(lively(SE(16, 4)), timm_layers.SEModule(16, rd_channels=4), {"fc1": "fc1", "fc2": "fc2"})


@pytest.mark.parametrize("kernel", [None, 5])
def test_eca_is_timms(kernel):
    theirs = timm_layers.EcaModule(16) if kernel is None else timm_layers.EcaModule(kernel_size=kernel)
    same(lively(ECA(16, kernel)), theirs, {"conv": "conv"})


def test_eca_kernels_of_the_paper():
    """The widths of ResNet-50's stages give 5, 5, 5 and 7 (equation 12); narrow maps at least 3."""
    assert [adaptive_kernel(width) for width in (256, 512, 1024, 2048)] == [5, 5, 5, 7]
    assert adaptive_kernel(1) == 3


@pytest.mark.parametrize("training", [True, False])
def test_coordinate_is_timms(training):
    names = {"conv": "conv1", "norm": "bn1", "height": "conv_h", "width": "conv_w"}
    same(lively(Coordinate(16)), CoordAttn(16, rd_channels=8, bias=True), names, training=training)


@pytest.mark.parametrize("fusion", ["add", "scale"])
def test_global_context_is_timms(fusion):
    theirs = TimmGlobalContext(16, fuse_add=fusion == "add", fuse_scale=fusion == "scale", rd_channels=4)
    head = f"mlp_{fusion}"
    names = {
        "attend": "conv_attn",
        "transform.0": f"{head}.fc1",
        "transform.1": f"{head}.norm",
        "transform.3": f"{head}.fc2",
    }
    theirs.get_submodule(head).norm.eps = 1e-5  # the authors' own, and torch's default; timm's is 1e-6
    same(lively(GlobalContext(16, 4, fusion=fusion)), theirs, names)


def test_global_context_starts_as_the_identity():
    x = torch.randn(2, 16, 5, 5)
    assert torch.equal(GlobalContext(16)(x), x)
    assert torch.allclose(GlobalContext(16).maps(x)["context"].mean((2, 3)), torch.ones(2, 1))


@pytest.mark.parametrize("fusion", ["product", "sum"])
def test_bam_by_its_equations(fusion):
    module = lively(BAM(8, 4, 2, fusion=fusion)).eval()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    w = dict(module.named_parameters())

    def norm(name, y):
        size = (1, -1) + (1,) * (y.ndim - 2)
        return y / math.sqrt(1 + 1e-5) * w[f"{name}.weight"].view(size) + w[f"{name}.bias"].view(size)

    channel = x.mean((2, 3)) @ w["channel.0.weight"].T + w["channel.0.bias"]
    channel = norm("channel.1", channel).relu() @ w["channel.3.weight"].T + w["channel.3.bias"]
    spatial = norm("spatial.1", F.conv2d(x, w["spatial.0.weight"], w["spatial.0.bias"])).relu()
    for layer in (3, 6):
        spatial = F.conv2d(spatial, w[f"spatial.{layer}.weight"], w[f"spatial.{layer}.bias"], padding=2, dilation=2)
        spatial = norm(f"spatial.{layer + 1}", spatial).relu()
    spatial = F.conv2d(spatial, w["spatial.9.weight"], w["spatial.9.bias"])
    channel = channel[:, :, None, None]
    inside = channel * spatial if fusion == "product" else channel + spatial
    assert torch.allclose(module(x), x * (1 + inside.sigmoid()), rtol=1e-12)


@pytest.mark.parametrize("fusion", ["sum", "max"])
def test_scse_by_its_equations(fusion):
    module = lively(SCSE(8, 2, fusion=fusion))
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    by_channel = torch.stack([module.channel(x[:1])[0], module.channel(x[1:])[0]])
    weight = module.spatial.weight[0, :, 0, 0]
    by_place = x * torch.sigmoid(torch.einsum("nchw,c->nhw", x, weight) + module.spatial.bias)[:, None]
    expected = by_channel + by_place if fusion == "sum" else torch.maximum(by_channel, by_place)
    assert torch.allclose(module(x), expected, rtol=1e-12)


def test_simam_by_its_energy():
    """The gate is sigmoid(1 / e*), with e* = 4 (v + lambda) / ((t - mean)² + 2 v + 2 lambda) (equation 5)."""
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    mean = x.mean((2, 3), keepdim=True)
    variance = x.var((2, 3), keepdim=True, unbiased=True)
    energy = 4 * (variance + 0.01) / ((x - mean).square() + 2 * variance + 2 * 0.01)
    assert torch.allclose(SimAM(3, 0.01)(x), x * torch.sigmoid(1 / energy), rtol=1e-12)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_gct_by_its_equations(norm):
    module = lively(GCT(5, norm=norm))
    x = torch.randn(2, 5, 4, 3, dtype=torch.float64)
    for sample, out in zip(x, module(x), strict=True):
        if norm == "l2":
            size = torch.stack([(channel.pow(2).sum() + 1e-5).sqrt() for channel in sample]) * module.alpha
            whole = ((size**2).sum() / 5 + 1e-5).sqrt()
        else:
            size = torch.stack([channel.abs().sum() for channel in sample]) * module.alpha
            whole = size.abs().sum() / 5 + 1e-5
        gate = 1 + (module.gamma * size / whole + module.beta).tanh()
        assert torch.allclose(out, sample * gate[:, None, None], rtol=1e-12)


def test_gct_starts_as_the_identity():
    x = torch.randn(2, 5, 4, 3)
    assert torch.equal(GCT(5)(x), x)


@pytest.mark.parametrize("spatial", [True, False])
def test_triplet_by_rotation(spatial):
    """As the paper tells it: rotate, gate over the two leading axes, rotate back, average."""
    module = lively(Triplet(6, 3, spatial=spatial)).eval()
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    results = []
    for rotation, gate in (((0, 2, 1, 3), module.channel_width), ((0, 3, 2, 1), module.channel_height)):
        rotated = x.permute(rotation)
        pooled = torch.stack([rotated.amax(1), rotated.mean(1)], 1)
        logits = gate.norm(F.conv2d(pooled, gate.conv.weight, padding=1))
        results.append((rotated * logits.sigmoid()).permute(rotation))
    if spatial:
        results.append(module.height_width(x))
    assert torch.allclose(module(x), sum(results) / len(results), rtol=1e-12)


@pytest.mark.parametrize(
    "build",
    [
        lambda: ECA(8, 4),
        lambda: ECA(0),
        lambda: BAM(8, dilation=0),
        lambda: SimAM(8, 0),
        lambda: Triplet(0),
        lambda: GCT(8, epsilon=0),
        lambda: SCSE(8, 0),
    ],
)
def test_what_cannot_be_says_so(build):
    with pytest.raises(ValueError, match="must be"):
        build()
