"""What must hold for every attention module, whatever its paper says, and that no option is accepted and ignored."""

import inspect
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError
from torch import nn

from cbam_core import attention
from cbam_core.attention import VARIANTS, Attention, attention_from_spec, create_attention
from cbam_core.attention.options import AttentionSpec
from cbam_core.errors import UnknownAttention

NAMES = [name for name in VARIANTS if name != "none"]
SPEC = TypeAdapter(AttentionSpec)

OTHER = {
    "cbam": {
        "reduction": 4,
        "kernel_size": 3,
        "order": "spatial_channel",
        "pools": ["lse"],
        "spatial_pools": ["conv"],
        "mlp_bias": False,
        "spatial_norm": "none",
        "gate": "hard_sigmoid",
        "init": "timm",
    },
    "se": {"reduction": 4},
    "eca": {"kernel_size": 5},
    "bam": {"reduction": 4, "dilation": 2, "fusion": "sum"},
    "scse": {"reduction": 4, "fusion": "max"},
    "simam": {"regularisation": 0.1},
    "coordinate": {"reduction": 4},
    "triplet": {"kernel_size": 3, "spatial": False},
    "gct": {"norm": "l1", "epsilon": 0.1},
    "global_context": {"reduction": 4, "fusion": "scale"},
}


def lively(name: str, channels: int, **options) -> nn.Module:
    """A module whose weights are all different from 0, the same ones for the same seed and shapes."""
    torch.manual_seed(1)
    module = create_attention(name, channels, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.linspace(-0.3, 0.5, parameter.numel()).view_as(parameter))
    return module.eval()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_changes_something(name):
    """The output of the module, or (gct's epsilon, say) nothing is left to be called an option."""
    fields = set(VARIANTS[name].model_fields) - {"type"}
    assert fields == set(OTHER[name])
    torch.manual_seed(2)
    x = torch.randn(2, 64, 6, 5)
    plain = lively(name, 64)(x)
    for field in fields:
        changed = lively(name, 64, **{field: OTHER[name][field]})(x)
        assert not torch.allclose(plain, changed, rtol=1e-6, atol=1e-7), field


@pytest.mark.parametrize("name", NAMES)
def test_the_class_and_its_options_say_the_same(name):
    """Same names, same defaults: `CBAM(64)` is what the spec `{type: cbam}` makes."""
    options = VARIANTS[name]
    signature = inspect.signature(type(create_attention(name, 16)).__init__)
    defaults = {
        key: parameter.default for key, parameter in signature.parameters.items() if key not in ("self", "channels")
    }
    assert defaults == {key: field.default for key, field in options.model_fields.items() if key != "type"}
    assert type(create_attention(name, 16)).__name__ in attention.__all__


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_survives_json(name):
    spec = SPEC.validate_python({"type": name, **OTHER[name]})
    assert SPEC.validate_json(SPEC.dump_json(spec)) == spec
    assert isinstance(attention_from_spec(spec, 64), Attention)


@pytest.mark.parametrize("name", NAMES)
def test_every_field_says_what_it_means(name):
    for field, info in VARIANTS[name].model_fields.items():
        assert field == "type" or info.description


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=20)
@given(
    batch=st.integers(2, 3), channels=st.integers(1, 40), height=st.integers(1, 9), width=st.integers(1, 9),
    training=st.booleans(), channels_last=st.booleans(), rectified=st.booleans(),
)  # fmt: skip
def test_any_shape(name, batch, channels, height, width, training, channels_last, rectified):
    """Same shape and layout out as in, nothing but numbers, and a gradient for every weight and for the input."""
    module = create_attention(name, channels).train(training)
    x = torch.randn(batch, channels, height, width)
    x = (x.relu() if rectified else x).contiguous(
        memory_format=torch.channels_last if channels_last else torch.contiguous_format
    )
    out = module(x.requires_grad_())
    assert out.shape == x.shape
    assert out.isfinite().all()
    out.sum().backward()
    assert x.grad.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in module.parameters())
    for gate in module.maps(x).values():
        assert torch.broadcast_shapes(gate.shape, x.shape) == x.shape


@settings(max_examples=40)
@given(
    order=st.sampled_from(["channel_spatial", "spatial_channel", "parallel"]),
    pools=st.lists(st.sampled_from(["avg", "max", "lp", "lse"]), min_size=1, unique=True),
    spatial_pools=st.sampled_from([["avg"], ["max"], ["max", "avg"], ["conv"]]),
    norm=st.sampled_from(["batch", "none"]),
    bias=st.booleans(),
    reduction=st.integers(1, 40),
    kernel=st.sampled_from([3, 5, 7]),
)
def test_any_cbam(order, pools, spatial_pools, norm, bias, reduction, kernel):
    """Every combination of its options runs, and both gates stay between 0 and 1."""
    module = create_attention(
        "cbam", 12, order=order, pools=pools, spatial_pools=spatial_pools, spatial_norm=norm, mlp_bias=bias,
        reduction=reduction, kernel_size=kernel,
    )  # fmt: skip
    x = torch.randn(2, 12, 4, 5)
    for gate in module.maps(x).values():
        assert ((gate >= 0) & (gate <= 1)).all()
    assert module(x).shape == x.shape


@pytest.mark.parametrize("name", NAMES)
def test_compiles_in_one_graph(name):
    module = lively(name, 32)
    x = torch.randn(2, 32, 6, 6, requires_grad=True)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x), module(x), atol=1e-6)
    compiled(x).sum().backward()
    mine, x.grad = x.grad.clone(), None
    module(x).sum().backward()
    assert torch.allclose(mine, x.grad, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_exports(name):
    module = lively(name, 16)
    x = torch.randn(2, 16, 6, 6)
    batch = {0: torch.export.Dim("batch", min=2, max=64)}
    exported = torch.export.export(module, (x,), dynamic_shapes=(batch,)).module()
    other = torch.randn(5, 16, 6, 6)
    assert torch.allclose(exported(other), module(other), atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_works_without_memory(name):
    """A service previews networks on the meta device."""
    with torch.device("meta"):
        module = create_attention(name, 16)
        assert module(torch.empty(2, 16, 8, 8)).device.type == "meta"


@pytest.mark.parametrize("name", NAMES)
def test_gradcheck(name):
    module = lively(name, 4).to(torch.float64)
    x = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,))


def test_none_is_the_identity():
    assert isinstance(create_attention("none", 16), nn.Identity)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(UnknownAttention, match="'cbamm'; known are none, cbam, se"):
        create_attention("cbamm", 16)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "cbam", "kernel_size": 4},
        {"type": "cbam", "reduction": 0},
        {"type": "cbam", "pools": []},
        {"type": "cbam", "pools": ["avg", "avg"]},
        {"type": "cbam", "pools": ["median"]},
        {"type": "cbam", "spatial_pools": ["conv", "avg"]},
        {"type": "cbam", "order": "channel", "kernel_size": 3},
        {"type": "cbam", "order": "spatial", "reduction": 8},
        {"type": "cbam", "ratio": 16},
        {"type": "eca", "kernel_size": 2},
        {"type": "simam", "regularisation": 0},
        {"type": "senet"},
    ],
)
def test_what_cannot_be_is_no_spec(spec):
    with pytest.raises(ValidationError):
        SPEC.validate_python(spec)


def test_half_a_cbam_survives_a_round_trip():
    """A dumped spec names every field, also those its order has no use for; they are at their defaults then."""
    spec = SPEC.validate_python({"type": "cbam", "order": "channel"})
    assert SPEC.validate_python(spec.model_dump()) == spec
    assert isinstance(spec, BaseModel)


def test_names_that_do_not_exist():
    import cbam_core.explain
    import cbam_core.networks

    for package in (attention, cbam_core.networks, cbam_core.explain):
        for name in package.__all__:
            assert getattr(package, name)
        with pytest.raises(AttributeError, match="no attribute 'CBAMM'"):
            package.CBAMM  # noqa: B018 - looking it up is the test


def test_specs_are_read_without_torch():
    code = (
        "import sys, cbam_core.spec, cbam_core.attention, cbam_core.networks, cbam_core.explain;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'timm', 'numpy', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
