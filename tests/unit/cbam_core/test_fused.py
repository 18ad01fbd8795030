"""The fused residual tail in Triton's interpreter, on the CPU, against the plain modules in fp64."""

import os

import pytest
import torch

from cbam_core import fused
from cbam_core.fused import tail as tails
from tests.unit.cbam_core.fused_cases import errors, make_tail, run

interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="needs Triton's interpreter; a GPU has tests of its own"
)
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy's, of exp(100) where a GPU gives inf
CALLS = {"function": tails._call, "operator": tails._operate}
"""By the autograd function, which eager mode uses, and by the operator, which torch.compile sees."""


def assert_as_exact_as_fp32(case, call=tails._call):
    """Against fp64, as exact as the plain modules in fp32: they lose digits where a sum cancels."""
    truth, plain = run(case.copy(dtype=torch.float64)), run(case.copy())
    allowed = {name: max(2e-5, 4 * error) for name, error in errors(plain, truth).items()}
    found = errors(run(case.copy(), call), truth)
    assert {name: error for name, error in found.items() if error > allowed[name]} == {}


@interpreted
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 16, 7, 7), {}),
        ((3, 24, 5, 9), {"kernel_size": 3, "mlp_bias": False}),
        ((1, 5, 3, 2), {"spatial_norm": "none"}),
        ((1, 64, 20, 20), {"reduction": 16}),
    ],
)
def test_result_gradients_and_statistics_are_those_of_the_plain_modules(shape, options, norm, training, call):
    assert_as_exact_as_fp32(make_tail(shape, norm=norm, training=training, **options), CALLS[call])


@interpreted
@pytest.mark.parametrize("call", CALLS)
def test_a_map_of_one_place(call):
    assert_as_exact_as_fp32(make_tail((4, 8, 1, 1), kernel_size=3), CALLS[call])


@interpreted
def test_the_convolution_may_lie_in_channels_last_and_its_gradient_does_too():
    case = make_tail((2, 8, 6, 5))
    case.cbam.to(memory_format=torch.channels_last)
    assert_as_exact_as_fp32(case)
    assert run(case, tails._call)["cbam.spatial.conv.weight"].stride() == case.cbam.spatial.conv.weight.stride()


@interpreted
def test_in_half_precision_it_is_nearer_to_fp64_than_the_plain_modules():
    """In fp16, since the interpreter cuts digits off for bf16, where a GPU rounds."""
    dtype = torch.float16
    case = make_tail((2, 32, 9, 8), dtype=dtype)
    reference = case.copy()
    reference.z, reference.shortcut, reference.gradient = (
        tensor.double() for tensor in (case.z, case.shortcut, case.gradient)
    )
    reference.cbam.double()
    reference.norm.double()
    truth, plain = run(reference), case.copy()
    with torch.autocast("cpu", dtype):
        theirs = errors(run(plain), truth)
    ours = errors(run(case, tails._call), truth)
    assert ours["out"] <= theirs["out"]
    assert ours["z"] <= theirs["z"]
    assert max(value for name, value in ours.items() if "." in name) < 1e-3, "weights' gradients are summed in fp32"


@interpreted
def test_a_module_in_half_precision_gets_gradients_in_its_own_type():
    case = make_tail((2, 16, 6, 6), dtype=torch.bfloat16)
    reference = run(case.copy(dtype=torch.float64))
    case.cbam.bfloat16()
    case.norm.bfloat16()
    found = run(case, tails._call)
    assert found["cbam.channel.fc1.weight"].dtype == found["norm.weight"].dtype == torch.bfloat16
    assert found["norm.running_var"].dtype == torch.bfloat16
    difference = errors(found, reference)
    assert max(difference[name] for name in ("out", "z", "shortcut", "cbam.channel.fc1.weight", "norm.weight")) < 0.03


@interpreted
def test_ties_give_the_whole_gradient_to_the_lowest_index_as_the_plain_modules_do():
    case = make_tail((2, 8, 6, 6))
    case.z = case.z.round()  # many equal values, and after the norm, equal channels too
    case.norm.weight.data.copy_(case.norm.weight.data.sign())
    case.norm.bias.data.zero_()
    case.z[:, 4:] = case.z[:, :4]
    assert_as_exact_as_fp32(case)


@interpreted
def test_a_norm_that_starts_at_zero():
    """Every place of a channel is then equal: the first one is the maximum."""
    case = make_tail((2, 8, 4, 4))
    case.norm.weight.data[::2] = 0
    assert_as_exact_as_fp32(case)


@interpreted
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("norm", [True, False])
def test_what_is_not_finite_stays_so_in_every_place_where_the_plain_modules_have_it(value, norm):
    case = make_tail((2, 8, 5, 5), norm=norm)
    case.z[1, 3, 2, 2] = value
    plain, ours = (run(case.copy(), call)["out"] for call in (None, tails._call))
    assert not plain.isfinite().all()
    assert (~ours.isfinite() | plain.isfinite()).all()
    if not norm:
        assert ours[0].isfinite().all() == plain[0].isfinite().all()


@interpreted
def test_a_shortcut_that_is_not_finite_does_not_vanish_in_the_relu():
    case = make_tail((1, 8, 4, 4))
    case.shortcut[0, 2, 1, 1] = float("nan")
    assert run(case, tails._call)["out"][0, 2, 1, 1].isnan()


@interpreted
def test_gradients_that_are_spread_or_laid_out_otherwise_are_taken():
    case = make_tail((2, 8, 4, 4))
    case.gradient = torch.ones(2, 8, 1, 1).expand(2, 8, 4, 4)
    assert_as_exact_as_fp32(case)
    case = make_tail((2, 8, 4, 4))
    case.gradient, case.shortcut = case.gradient.contiguous(), case.shortcut.contiguous()
    assert_as_exact_as_fp32(case, fused.residual)


@interpreted
def test_the_same_input_gives_the_same_bits():
    case = make_tail((2, 24, 9, 7))
    first, second = (run(case.copy(), tails._call) for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@interpreted
def test_frozen_weights_get_no_gradient_and_the_rest_the_same():
    case, other = make_tail((2, 8, 4, 4)), None
    other = case.copy()
    other.cbam.requires_grad_(False)
    z, shortcut = other.z.clone().requires_grad_(), other.shortcut.clone()
    tails._call(other.cbam, z, shortcut, other.norm).backward(other.gradient)
    assert all(parameter.grad is None for parameter in other.cbam.parameters())
    assert torch.equal(z.grad, run(case, tails._call)["z"])


@interpreted
def test_a_checkpointed_block_has_the_same_gradients():
    case = make_tail((2, 8, 4, 4))
    kept = run(case.copy(), tails._call)

    def recomputed(cbam, z, shortcut, norm):
        return torch.utils.checkpoint.checkpoint(tails._call, cbam, z, shortcut, norm, use_reentrant=False)

    again = run(case.copy(), recomputed)
    assert all(torch.equal(kept[name], again[name]) for name in kept if "running" not in name and "batches" not in name)


@interpreted
@pytest.mark.parametrize("training", [True, False])
def test_the_operator_is_what_torch_library_asks_of_one(training):
    case = make_tail((2, 8, 4, 4), training=training)
    cbam, norm = case.cbam, case.norm
    from cbam_core.fused.operator import residual_tail

    arguments = (
        case.z.requires_grad_(),
        case.shortcut.requires_grad_(),
        tails._given_of(norm),
        [cbam.channel.fc1.weight, cbam.channel.fc2.weight, cbam.channel.fc1.bias, cbam.channel.fc2.bias],
        [cbam.spatial.conv.weight, *tails._given_of(cbam.spatial.norm)],
    )
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(residual_tail, arguments, {"norm_eps": 1e-5, "gate_eps": 1e-5}, test_utils=tests)


@interpreted
def test_a_second_derivative_is_refused_and_not_wrong():
    case = make_tail((2, 8, 4, 4))
    z = case.z.requires_grad_()
    out = tails._call(case.cbam, z * 1, case.shortcut, case.norm)
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(out.sum(), z, create_graph=True)


@interpreted
def test_saved_tensors_may_come_back_in_another_layout():
    case = make_tail((2, 8, 4, 4))
    expected = run(case.copy(), tails._call)

    def elsewhere(*given):
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x.contiguous(), lambda x: x):
            return tails._call(*given)

    found = run(case.copy(), elsewhere)
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
