"""Attention in half precision: under autocast and in pure half, every module keeps its input's type and its range.

Autocast on CUDA has lists of its own (`sum` gives fp32), which fake tensors follow without a GPU.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, get_args, get_origin

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cbam_core.attention import VARIANTS, Attention, create_attention
from cbam_core.attention.options import ChannelPool, SpatialPool
from cbam_core.explain import kept_for_backward
from cbam_core.networks import build_network
from cbam_core.spec import ModelSpec

NAMES = [name for name in VARIANTS if name != "none"]
HALF = [torch.bfloat16, torch.float16]


def _variants() -> Iterator[tuple[str, dict[str, object]]]:
    """Every module with its defaults, and with every choice that one of its options has."""
    for name in NAMES:
        yield name, {}
        for option, field in VARIANTS[name].model_fields.items():
            choices: tuple[object, ...] = ()
            if option != "type" and get_origin(field.annotation) is Literal:
                choices = get_args(field.annotation)
            elif field.annotation is bool:
                choices = (True, False)
            elif option == "pools":
                choices = tuple([one] for one in get_args(ChannelPool))
            elif option == "spatial_pools":
                choices = tuple([one] for one in get_args(SpatialPool))
            yield from ((name, {option: choice}) for choice in choices if choice != field.default)


VARIATIONS = list(_variants())
SHOWN = [name + "".join(f" {option}={value}" for option, value in options.items()) for name, options in VARIATIONS]


@contextmanager
def cuda_autocast(dtype: torch.dtype) -> Iterator[None]:
    """`torch.autocast("cuda", dtype)`, which switches itself off where there is no GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


def test_there_are_variants_of_every_kind():
    assert {name for name, _ in VARIATIONS} == set(NAMES)
    assert {"bam fusion=sum", "scse fusion=max", "cbam order=parallel", "cbam pools=['lse']"} <= set(SHOWN)


@pytest.mark.parametrize(("name", "options"), VARIATIONS, ids=SHOWN)
@pytest.mark.parametrize("half", HALF)
def test_autocast_on_cuda_keeps_the_type(name, options, half):
    """Of a map that comes in either half type or in fp32, in training and in evaluation."""
    with FakeTensorMode(), torch.device("cuda"):
        module = create_attention(name, 32, **options)
        for dtype in (torch.float32, *HALF):
            for training in (True, False):
                x = torch.randn(2, 32, 8, 8, dtype=dtype, requires_grad=training)
                _keeps_type(module.train(training), x, cuda_autocast(half))


@pytest.mark.parametrize(("name", "options"), VARIATIONS, ids=SHOWN)
@pytest.mark.parametrize("half", HALF)
def test_pure_half_on_cuda_keeps_the_type(name, options, half):
    with FakeTensorMode(), torch.device("cuda"):
        module = _made_in(half, name, options)
        _keeps_type(module, torch.randn(2, 32, 8, 8, dtype=half, requires_grad=True), nullcontext())


@pytest.mark.parametrize(("name", "options"), VARIATIONS, ids=SHOWN)
@pytest.mark.parametrize("half", HALF)
def test_autocast_and_pure_half_on_the_cpu_keep_the_type(name, options, half):
    for dtype in (torch.float32, half):
        x = torch.randn(2, 32, 8, 8, dtype=dtype, requires_grad=True)
        _keeps_type(create_attention(name, 32, **options), x, torch.autocast("cpu", half))
    x = torch.randn(2, 32, 8, 8, dtype=half, requires_grad=True)
    _keeps_type(create_attention(name, 32, **options).to(half), x, nullcontext())


def _made_in(dtype: torch.dtype, name: str, options: dict[str, object]) -> nn.Module:
    """A module whose weights are made in `dtype`: fake weights cannot be converted."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        return create_attention(name, 32, **options)
    finally:
        torch.set_default_dtype(before)


def _keeps_type(module: nn.Module, x: torch.Tensor, precision: AbstractContextManager[None]) -> None:
    assert isinstance(module, Attention)
    with precision:
        assert module(x).dtype == x.dtype
        assert module.residual(x, x).dtype == x.dtype


def lively(name: str, **options: object) -> nn.Module:
    """A module of 64 channels with random weights, the same ones each time."""
    torch.manual_seed(1)
    module = create_attention(name, 64, **options)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3)
    return module.eval()


@pytest.mark.parametrize(("name", "options"), VARIATIONS, ids=SHOWN)
@pytest.mark.parametrize("half", HALF)
@pytest.mark.parametrize("scale", [6, 600])
def test_half_precision_neither_overflows_nor_strays(name, options, half, scale):
    """Forward and backward on a map whose sum of squares is beyond fp16; at 6, close to the same weights in fp64.

    At 600 the rounding of the map alone may turn a gate over: there the numbers must be finite.
    """
    if scale > 6 and options.get("pools") == ["lp"]:
        pytest.skip("a power-sum over the map is itself beyond fp16")
    module = lively(name, **options).to(half)
    x = (scale * torch.randn(2, 64, 56, 56)).to(half).requires_grad_()
    out = module(x)
    out.backward(torch.full_like(out, 2**-10))  # what a loss divided by its batch gives, at most
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    if scale == 6:
        exact = copy.deepcopy(module).double()(x.double())
        assert (out.double() - exact).abs().max() / exact.abs().max() < 4 * torch.finfo(half).eps


@pytest.mark.parametrize("half", HALF)
def test_simam_of_a_map_far_from_zero(half):
    """The mean is not rounded to half before it is subtracted, and a constant map is like its surroundings."""
    x = (100 + 4 * torch.randn(2, 8, 14, 14)).to(half)
    module = create_attention("simam", 8)
    assert torch.allclose(module.gate(x).double(), module.gate(x.double()), atol=2 * torch.finfo(half).eps)
    tiny = create_attention("simam", 8, regularisation=1e-30)
    flat = tiny.gate(torch.full((1, 8, 4, 4), 3.0, dtype=half))
    assert torch.allclose(flat.float(), torch.tensor(0.5).sigmoid(), atol=1e-2)
    edges = torch.tensor([-1.0, 1.0] * 8).view(1, 1, 4, 4) * torch.finfo(torch.float16).max
    assert torch.allclose(module.gate(edges.to(half)).double(), module.gate(edges.double()), atol=0.02)


def test_maps_are_those_that_the_module_multiplies_with_under_autocast():
    """The second gate of CBAM sees the refined map in its own type, as in the forward pass."""
    with FakeTensorMode(), torch.device("cuda"):
        module = create_attention("cbam", 32)
        seen: list[torch.dtype] = []
        gate = module.spatial.gate
        module.spatial.gate = lambda x: (seen.append(x.dtype), gate(x))[1]
        x = torch.randn(2, 32, 8, 8, dtype=torch.bfloat16)
        with cuda_autocast(torch.bfloat16):
            module(x)
            module.maps(x)
    assert seen == [torch.bfloat16, torch.bfloat16]


def kept_under_autocast(model: ModelSpec, batch: int) -> tuple[int, int]:
    """Bytes of maps that autograd keeps on CUDA in bf16, and of weights that autocast copies, counted apart."""
    with FakeTensorMode():
        with torch.device("cuda"):
            network = build_network(model, 1000)
            images, labels = torch.empty(batch, 3, 224, 224), torch.zeros(batch, dtype=torch.long)
        for module in network.modules():
            if hasattr(type(module), "unmodified"):
                module.fused = "off"
        parameters = {parameter.shape for parameter in network.parameters()}
        own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
        saved: dict[int, torch.Tensor] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage()._cdata not in own:
                saved.setdefault(tensor.untyped_storage()._cdata, tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), cuda_autocast(torch.bfloat16):
            F.cross_entropy(network(images), labels)
        copies = [one for one in saved.values() if {one.shape, one.shape[::-1]} & parameters]
        of_weights = sum(one.untyped_storage().nbytes() for one in copies)
        return sum(one.untyped_storage().nbytes() for one in saved.values()) - of_weights, of_weights


@pytest.mark.parametrize("name", VARIANTS)
def test_the_memory_estimate_is_what_autocast_keeps(name):
    """Half of what fp32 keeps, which is how a preview counts, for ResNet-50 at 224² (some 44 MB an image)."""
    model = ModelSpec.model_validate({"backbone": "resnet50", "attention": {"type": name}})
    with torch.device("meta"):
        counted = kept_for_backward(build_network(model, 1000), (3, 224, 224)).bytes_per_image // 2
    kept, _ = kept_under_autocast(model, 8)
    assert kept / 8 == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize(("name", "megabytes"), [("none", 69), ("se", 83), ("cbam", 94)])
def test_a_resnet50_keeps_no_more_than_measured(name, megabytes):
    """MB an image of a batch of two, its share of the weights' copies among them."""
    model = ModelSpec.model_validate({"backbone": "resnet50", "attention": {"type": name}})
    kept, copied = kept_under_autocast(model, 2)
    assert (kept + copied) / 2e6 == pytest.approx(megabytes, abs=1)
