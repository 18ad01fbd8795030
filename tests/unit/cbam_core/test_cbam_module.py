"""CBAM against independent references: timm's module, torch's own pools, finite differences, the paper's equations."""

import copy
import shutil

import pytest
import torch
import torch.nn.functional as F
from timm.layers.cbam import CbamModule
from torch import nn

from cbam_core.attention import CBAM, ChannelAttention, SpatialAttention, maximum
from cbam_core.attention.cbam import ORDERS
from cbam_core.attention.functional import max_pool
from cbam_core.attention.maximum import max_over
from cbam_core.networks.convert import convert_state_dict


def timm_twin(ours: CBAM, channels: int, reduction: int, kernel_size: int, bias: bool = True) -> CbamModule:
    """timm's module with the weights of `ours`, moved by hand, not by our converter."""
    twin = CbamModule(channels, 1 / reduction, spatial_kernel_size=kernel_size, mlp_bias=bias).to(torch.float64)
    with torch.no_grad():
        for name in ("fc1", "fc2"):
            mine, theirs = getattr(ours.channel, name), getattr(twin.channel, name)
            theirs.weight.copy_(mine.weight[:, :, None, None])
            if bias:
                theirs.bias.copy_(mine.bias)
        twin.spatial.conv.conv.weight.copy_(ours.spatial.conv.weight[:, [1, 0]])
        twin.spatial.conv.bn.load_state_dict(ours.spatial.norm.state_dict())
    twin.spatial.conv.bn.momentum = 0.01
    return twin


def lively(module: nn.Module) -> nn.Module:
    """All weights random, in fp64: nothing may hide behind a zero."""
    with torch.no_grad():
        for tensor in module.parameters():
            tensor.normal_(0, 0.5)
    return module.to(torch.float64)


@pytest.mark.parametrize("shape", [(2, 16, 7, 7), (3, 64, 5, 9), (2, 32, 1, 1), (2, 8, 2, 3), (1, 48, 14, 14)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_timm_in_fp64_forward_and_backward(shape, training, bias):
    ours = lively(CBAM(shape[1], 8, 3, mlp_bias=bias)).train(training)
    theirs = timm_twin(ours, shape[1], 8, 3, bias).train(training)
    x, y = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    mine, their = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, reference = ours(mine), theirs(their)
    (out * y).sum().backward()
    (reference * y).sum().backward()

    assert torch.allclose(out, reference, rtol=1e-12, atol=1e-12)
    assert torch.allclose(mine.grad, their.grad, rtol=1e-12, atol=1e-12)
    theirs.spatial.conv.conv.weight.grad = theirs.spatial.conv.conv.weight.grad.flip(1)
    grads = [parameter.grad.flatten() for parameter in ours.parameters()]
    for grad, parameter in zip(grads, theirs.parameters(), strict=True):
        assert torch.allclose(grad, parameter.grad.flatten(), rtol=1e-12, atol=1e-11)
    assert torch.allclose(ours.spatial.norm.running_var, theirs.spatial.conv.bn.running_var, rtol=1e-12)


def test_equals_timm_in_fp32():
    ours = CBAM(64)
    nn.init.ones_(ours.spatial.norm.weight)
    theirs = timm_twin(ours, 64, 16, 7).to(torch.float32)
    x = torch.randn(4, 64, 14, 14)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_the_pools_are_the_authors_pools():
    """lp and lse as torch and the definition have them; avg and max are covered by timm."""
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    gate = lively(ChannelAttention(6, 2, pools=("lp",)))
    pooled = F.lp_pool2d(x.abs(), 2, (4, 5)).flatten(1)  # torch's lp loses the sign of odd powers only
    assert torch.allclose(gate.gate(x).flatten(1), torch.sigmoid(gate.fc2(gate.fc1(pooled).relu())))
    gate = lively(ChannelAttention(6, 2, pools=("lse",)))
    pooled = x.exp().sum((2, 3)).log()
    assert torch.allclose(gate.gate(x).flatten(1), torch.sigmoid(gate.fc2(gate.fc1(pooled).relu())))


def test_the_gates_are_written_out_once_by_hand():
    """Equations 2 and 3 in plain arithmetic, hard sigmoid, no norm, 1×1 convolution in the place of the pools."""
    module = lively(CBAM(4, 2, 3, spatial_pools=("conv",), spatial_norm="none", gate="hard_sigmoid"))
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    channel, spatial = module.channel, module.spatial
    logits = sum(channel.fc2(channel.fc1(pooled).relu()) for pooled in (x.mean((2, 3)), x.amax((2, 3))))
    refined = x * (logits / 6 + 0.5).clamp(0, 1)[:, :, None, None]
    squeezed = (refined * spatial.squeeze.weight).sum(1, keepdim=True)
    expected = refined * (F.conv2d(squeezed, spatial.conv.weight, padding=1) / 6 + 0.5).clamp(0, 1)
    assert torch.allclose(module(x), expected, rtol=1e-12)


@pytest.mark.parametrize("order", list(ORDERS))
def test_orders(order):
    """Each order is made of the same two halves; a half that is absent has no weights."""
    own = {} if order == "spatial" else {"reduction": 4}
    own |= {} if order == "channel" else {"kernel_size": 3}
    module = lively(CBAM(8, order=order, **own)).eval()
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    gates = module.maps(x)
    assert tuple(gates) == ORDERS[order]
    assert torch.allclose(module(x), x * torch.stack(torch.broadcast_tensors(*gates.values())).prod(0))
    assert hasattr(module, "channel") == (order != "spatial")
    assert hasattr(module, "spatial") == (order != "channel")
    if order == "parallel":
        assert torch.equal(gates["spatial"], module.spatial.gate(x))
    if order == "spatial_channel":
        assert torch.equal(gates["channel"], module.channel.gate(x * gates["spatial"]))


def test_official_start():
    """The spatial gate is exactly one half, and no channel gate is near either end."""
    module = CBAM(256)
    x = torch.randn(8, 256, 7, 7).relu()
    gates = module.maps(x)
    assert torch.equal(gates["spatial"], torch.full((8, 1, 7, 7), 0.5))
    assert 0.05 < gates["channel"].min() < gates["channel"].max() < 0.95
    assert module.spatial.norm.momentum == 0.01
    assert not module.channel.fc1.bias.any()
    assert not module.channel.fc2.bias.any()
    bound = 1 / 256**0.5  # nn.Linear's own rule: uniform between ± 1 / sqrt(fan_in)
    assert 0.95 * bound < module.channel.fc1.weight.abs().max() <= bound


def test_timm_start_saturates_what_the_official_does_not():
    module = CBAM(256, init="timm")
    x = torch.randn(8, 256, 7, 7).relu()
    channel = module.maps(x)["channel"]
    assert ((channel < 0.05) | (channel > 0.95)).float().mean() > 0.2
    assert module.spatial.norm.weight.item() == 1
    assert module.channel.fc1.weight.std().item() == pytest.approx((2 / 16) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": "parallel", "pools": ("lp", "lse")},
        {"order": "spatial_channel", "spatial_pools": ("conv",), "spatial_norm": "none", "mlp_bias": False},
        {"spatial_pools": ("max",), "pools": ("max",)},
    ],
)
def test_gradcheck(options):
    module = lively(CBAM(4, 2, 3, **options)).eval()
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,))


def test_a_tie_gives_its_whole_gradient_to_the_lowest_index():
    x = torch.tensor([3.0, 5.0, 5.0, 1.0], requires_grad=True)
    for dim, shape in ((2, (1, 1, 2, 2)), (1, (1, 4, 1, 1))):
        x.grad = None
        image = x.view(shape)
        (max_pool(image) if dim == 2 else max_over(image, 1)).sum().backward()
        assert x.grad.tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (7, 7), (33, 1)])
def test_maps_smaller_than_the_kernel_and_fewer_channels_than_r(size):
    module = CBAM(3, reduction=16, kernel_size=7)
    out = module(torch.randn(2, 3, *size))
    assert out.shape == (2, 3, *size)
    assert module.channel.fc1.out_features == 1


def test_nan_is_never_hidden():
    x = torch.randn(2, 8, 4, 4)
    x[0, 3, 1, 1] = torch.nan
    out = CBAM(8).eval()(x)
    assert out[0].isnan().any()
    assert not out[1].isnan().any()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            poisoned = x.clone().requires_grad_(grad)
            assert ChannelAttention(8, pools=("max",)).gate(poisoned)[0].isnan().any()
            assert SpatialAttention(3, pools=("max",), init="timm").eval().gate(poisoned)[0].isnan().any()


def test_channels_last_stays_channels_last():
    x = torch.randn(2, 16, 6, 6)
    module = CBAM(16).eval()
    out = module(x.to(memory_format=torch.channels_last))
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(out, module(x), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_no_more_than_timm_does(dtype):
    """Distance to the fp64 result, ours beside timm's on the same weights."""
    ours = CBAM(64, init="timm").eval()
    theirs = timm_twin(ours, 64, 16, 7).eval()
    x = torch.randn(4, 64, 14, 14)
    exact = theirs(x.double())
    mine = (ours.to(dtype)(x.to(dtype)).double() - exact).abs().mean()
    their = (theirs.to(dtype)(x.to(dtype)).double() - exact).abs().mean()
    assert mine <= 1.1 * their


def test_autocast():
    module = CBAM(16, init="timm")
    x = torch.randn(2, 16, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x.requires_grad_())
        out.sum().backward()
    assert torch.allclose(out.float(), module(x), atol=0.05)
    assert x.grad.isfinite().all()


def test_saves_no_more_for_the_backward_than_timm():
    """Bytes that autograd keeps, each storage once, without the weights."""
    ours, x = CBAM(64), torch.randn(8, 64, 28, 28, requires_grad=True)
    theirs = CbamModule(64, mlp_bias=True)
    assert _saved_bytes(ours, x) <= _saved_bytes(theirs, x)


def _saved_bytes(module: nn.Module, x: torch.Tensor) -> int:
    storages = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = module(x)
    del out
    return sum(storages.values())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CBAM(0), "channels must be"),
        (lambda: CBAM(8, 0), "reduction must be greater than or equal to 1; got 0"),
        (lambda: CBAM(8, kernel_size=4), "odd"),
        (lambda: ChannelAttention(0), "channels and reduction"),
        (lambda: ChannelAttention(8, pools=()), "at least one of avg, max, lp, lse"),
        (lambda: SpatialAttention(4), "odd"),
        (lambda: SpatialAttention(pools=()), "at least one of avg, max, conv"),
        (lambda: SpatialAttention(pools=("conv",)), "together with `channels`"),
        (lambda: SpatialAttention(pools=("conv", "avg"), channels=8), "conv alone"),
    ],
)
def test_what_cannot_be_says_so(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_weights_survive_a_file(tmp_path):
    module = lively(CBAM(16))
    torch.save(module.state_dict(), tmp_path / "cbam.pt")
    other = CBAM(16).to(torch.float64)
    other.load_state_dict(torch.load(tmp_path / "cbam.pt", weights_only=True))
    x = torch.randn(2, 16, 5, 5, dtype=torch.float64)
    assert torch.equal(other.eval()(x), module.eval()(x))


def test_the_converter_agrees_with_the_mapping_by_hand():
    ours = lively(CBAM(32, 4, 5))
    by_hand = timm_twin(ours, 32, 4, 5).state_dict()
    converted = convert_state_dict(ours.state_dict(), source="ours", target="timm")
    assert converted.keys() == by_hand.keys()
    assert all(torch.equal(converted[name], by_hand[name]) for name in by_hand)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize(("dynamic", "hides_maximum"), [(False, False), (True, False), (False, True)])
def test_the_compiler_for_real(dynamic, hides_maximum, monkeypatch):
    """Generated code, training mode, sizes fixed or symbolic: input gradient and running statistics as in eager."""
    if hides_maximum:  # as it always is where torch would fuse it wrongly
        monkeypatch.setattr(maximum, "_FUSES_INDEX_WRONGLY", True)
    eager = CBAM(32, init="timm")
    compiled_module = copy.deepcopy(eager)
    torch.compiler.reset()
    compiled = torch.compile(compiled_module, fullgraph=True, dynamic=dynamic)
    x = torch.randn(2, 32, 9, 9)
    grads = []
    for module in (eager, compiled):
        image = x.clone().requires_grad_()
        module(image).square().sum().backward()
        grads.append(image.grad)
    assert torch.allclose(grads[0], grads[1], atol=1e-4)
    assert torch.allclose(eager.spatial.norm.running_mean, compiled_module.spatial.norm.running_mean, atol=1e-6)


@pytest.mark.parametrize("size", [256, 257, 65_537])
def test_indices_of_every_width_come_back(size):
    """One, two and four bytes per index: the gradient lands on the maximum wherever it is."""
    for place in (0, 127, 128, 255, size - 1, size // 2):
        x = torch.zeros(2, size)
        x[:, place] = 1
        max_over(x.requires_grad_(), 1).sum().backward()
        assert x.grad.nonzero().tolist() == [[0, place], [1, place]]
