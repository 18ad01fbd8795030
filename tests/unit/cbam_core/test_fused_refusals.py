"""Where the fused residual tail does not apply: it says so by name, and the plain modules run."""

import copy
import os

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cbam_core import fused
from cbam_core.attention import CBAM, SE
from cbam_core.errors import SpecError
from cbam_core.fused import tail as tails
from cbam_core.networks import build_network
from cbam_core.networks.attach import residual
from cbam_core.spec import ModelSpec
from tests.unit.cbam_core.fused_cases import errors, make_tail, run

interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="needs Triton's interpreter; a GPU has tests of its own"
)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of exp(100) where a GPU gives inf


def refused(case, **options):
    return fused.refusal(case.cbam, case.norm, case.z, case.shortcut)


def test_on_a_cpu_it_is_refused_and_the_plain_modules_run():
    case = make_tail((2, 8, 4, 4))
    assert "cpu" in refused(case)
    auto, off = (run(case.copy(fused=mode)) for mode in ("auto", "off"))
    assert all(torch.equal(value, off[name]) for name, value in auto.items())
    with pytest.raises(ValueError, match="runs on CUDA devices"):
        run(case.copy(fused="on"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"order": "spatial_channel"}, "order"),
        ({"order": "channel"}, "order"),
        ({"pools": ("avg",)}, "pool"),
        ({"spatial_pools": ("max",)}, "pool"),
        ({"spatial_pools": ("conv",)}, "pool"),
        ({"gate": "hard_sigmoid"}, "sigmoid"),
        ({"kernel_size": 9}, "kernel_size"),
    ],
)
def test_what_has_no_kernels_is_refused_by_name(options, word):
    assert word in fused.unsupported(CBAM(16, **options))


class Louder(CBAM):
    def forward(self, x):
        return 2 * super().forward(x)


def test_what_a_user_has_changed_is_refused_by_name():
    """The kernels would leave it out without a word."""
    assert "class" in fused.unsupported(Louder(16))
    for change in (
        lambda cbam: setattr(cbam, "channel", SE(16)),
        lambda cbam: setattr(cbam.channel, "fc1", nn.Sequential(cbam.channel.fc1)),
        lambda cbam: nn.utils.parametrizations.weight_norm(cbam.channel.fc2),
        lambda cbam: nn.utils.parametrizations.spectral_norm(cbam.spatial.conv),
    ):
        cbam = CBAM(16)
        change(cbam)
        assert "class" in fused.unsupported(cbam)
    cbam = CBAM(16)
    cbam.spatial.conv = nn.Conv2d(2, 1, 7, padding=3)
    assert "convolution" in fused.unsupported(cbam)
    cbam.spatial.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)
    assert fused.unsupported(cbam) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda cbam: setattr(cbam.channel, "fc2", nn.Linear(1, 16, bias=False)),
        lambda cbam: setattr(cbam.channel, "fc1", nn.Linear(16, 1, bias=False)),
        lambda cbam: setattr(cbam.spatial.conv, "padding_mode", "reflect"),
        lambda cbam: setattr(cbam.spatial.conv, "weight", nn.Parameter(cbam.spatial.conv.weight.transpose(2, 3))),
        lambda cbam: cbam.channel.pools.append(cbam.channel.pools[0]),
    ],
)
def test_layers_that_do_not_fit_each_other_are_refused(change):
    cbam = CBAM(16)
    assert fused.unsupported(cbam) is None
    change(cbam)
    assert fused.unsupported(cbam) is not None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda case: setattr(case, "cbam", CBAM(16)), "8 channels"),
        (lambda case: setattr(case, "norm", nn.BatchNorm2d(4)), "8 channels"),
        (lambda case: setattr(case.norm, "weight", nn.Parameter(torch.ones(8, 2)[:, 0])), "laid out"),
        (lambda case: setattr(case.norm, "running_mean", torch.zeros(8, 2)[:, 0]), "laid out"),
        (lambda case: setattr(case.cbam, "forward", lambda x: x), "replaced"),
    ],
)
def test_weights_that_the_kernels_would_read_wrongly_are_refused(change, word, monkeypatch):
    monkeypatch.setattr(tails, "unavailable", lambda _: None)
    case = make_tail((2, 8, 4, 4))
    change(case)
    assert word in refused(case)


def test_maps_beyond_offsets_of_32_bits_are_refused():
    for shape in ((1, 256, 2900, 2900), (1, 16, 4200, 4200)):
        x = torch.empty(shape, device="meta", dtype=torch.bfloat16).to(memory_format=torch.channels_last)
        assert "too large" in tails._unfit(x, x)


@interpreted
def test_a_norm_that_returns_another_layout_is_followed_by_the_plain_modules(monkeypatch):
    monkeypatch.setattr(tails, "unavailable", lambda _: None)
    case = make_tail((2, 8, 4, 4))
    case.norm = nn.Sequential(case.norm, nn.Flatten(2), nn.Unflatten(2, (4, 4)))
    on, off = (run(case.copy(fused=mode)) for mode in ("auto", "off"))
    assert max(errors(on, off).values()) < 2e-5


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("site", ["cbam", "channel", "norm"])
def test_a_hook_is_seen_while_compiling(site, monkeypatch):
    monkeypatch.setattr(tails, "unavailable", lambda _: None)
    case = make_tail((2, 8, 4, 4), training=False)
    module = {"cbam": case.cbam, "channel": case.cbam.channel, "norm": case.norm}[site]
    module.register_forward_hook(lambda _module, _given, out: out * 0)
    plain = run(case.copy())["out"]
    case.cbam.fused = "auto"
    compiled = torch.compile(lambda z, shortcut: fused.refusal(case.cbam, case.norm, z, shortcut), backend="eager")
    assert "hooks" in compiled(case.z, case.shortcut)
    assert plain.isfinite().all()


def test_a_module_of_ones_own_and_one_that_is_wrapped_are_run():
    x, shortcut, norm = torch.randn(2, 8, 5, 5), torch.randn(2, 8, 5, 5), nn.BatchNorm2d(8)
    cbam = CBAM(8, 2)
    expected = torch.relu(copy.deepcopy(cbam)(copy.deepcopy(norm)(x)) + shortcut)
    assert torch.equal(residual(norm, nn.Sequential(cbam), x, shortcut), expected)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own forward mode uses torch.jit.script
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_transforms_of_functions_take_the_plain_modules(monkeypatch):
    monkeypatch.setattr(tails, "unavailable", lambda _: None)
    case, seen = make_tail((2, 8, 4, 4)), []

    def loss(z):
        seen.append(fused.refusal(case.cbam, case.norm, z, case.shortcut))
        return z.sum()

    torch.func.grad(loss)(case.z)
    with torch.autograd.forward_ad.dual_level():
        loss(torch.autograd.forward_ad.make_dual(case.z, case.z))
    assert all("torch.func" in reason for reason in seen)
    assert len(seen) == 2


def test_what_does_not_fit_a_call_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(tails, "unavailable", lambda _: None)
    assert refused(make_tail((2, 8, 4, 4))) is None
    for change, word in {
        lambda case: setattr(case, "z", case.z.contiguous()): "channels_last",
        lambda case: setattr(case, "z", case.z.double()): "type",
        lambda case: setattr(case, "shortcut", case.shortcut.half()): "type",
        lambda case: setattr(case, "shortcut", case.shortcut[:1]): "shape",
        lambda case: (setattr(case, "z", case.z[:0]), setattr(case, "shortcut", case.shortcut[:0])): "few values",
        lambda case: case.cbam.channel.register_forward_hook(lambda *_: None): "hooks",
        lambda case: case.norm.register_forward_pre_hook(lambda *_: None): "hooks",
    }.items():
        case = make_tail((2, 8, 4, 4))
        change(case)
        assert word in refused(case)
    case = make_tail((1, 8, 1, 1))
    assert "few values" in refused(case)


@interpreted
def test_a_norm_of_another_kind_runs_before_it(monkeypatch):
    monkeypatch.setattr(tails, "unavailable", lambda _: None)
    case = make_tail((2, 8, 4, 4))
    case.norm = nn.BatchNorm2d(8, momentum=None)
    on, off = (run(case.copy(fused=mode)) for mode in ("on", "off"))
    assert max(errors(on, off).values()) < 2e-5


def test_configure_sets_every_module_and_says_why_not():
    model = ModelSpec.model_validate({"backbone": "cifar_resnet20", "attention": {"type": "cbam"}})
    network = build_network(model, 10)
    cuda = torch.device("cuda", 0)
    available = fused.unavailable(cuda)
    assert fused.configure(network, "auto", cuda, channels_last=True) == available
    assert "channels_last" in fused.configure(network, "auto", cuda, channels_last=False) or available
    assert "cpu" in fused.configure(network, "auto", torch.device("cpu"), channels_last=True)
    assert "off" in fused.configure(network, "off", cuda, channels_last=True)
    assert {module.fused for module in network.modules() if isinstance(module, CBAM)} == {"off"}
    with pytest.raises(SpecError, match=r"train.fused is on, but it runs on CUDA"):
        fused.configure(network, "on", torch.device("cpu"), channels_last=True)
    plain = build_network(ModelSpec(backbone="cifar_resnet20"), 10)
    assert fused.configure(plain, "auto", cuda, channels_last=True) in (available, "the network has no CBAM")


@pytest.mark.parametrize("attention", [nn.Identity(), SE(8, 2), CBAM(8, 2)])
def test_every_block_ends_by_residual(attention):
    x, shortcut, norm = torch.randn(2, 8, 5, 5), torch.randn(2, 8, 5, 5), nn.BatchNorm2d(8)
    expected = torch.relu(copy.deepcopy(attention)(copy.deepcopy(norm)(x)) + shortcut)
    assert torch.equal(residual(norm, attention, x, shortcut), expected)


@pytest.mark.parametrize("attention", ["cbam", "se"])
def test_autocast_on_cuda_leaves_the_map_in_half_precision(attention, monkeypatch):
    """With fake tensors: sums are on CUDA's list of fp32, and used to make all that follows fp32."""
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    model = ModelSpec.model_validate({"backbone": "cifar_resnet20", "attention": {"type": attention}})
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        network = build_network(model, 10)
        seen = []
        for module in network.modules():
            if type(module).__name__ in ("CBAM", "SE"):
                module.register_forward_hook(lambda _m, given, out: seen.append((given[0].dtype, out.dtype)))
        with torch.autocast("cuda", torch.float16):
            network(torch.zeros(2, 3, 32, 32))
    assert seen
    assert all(given == out == torch.float16 for given, out in seen)
