"""The spatial gate's k×k convolution, as it trains on a CPU, against torch's convolution in fp64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad, vmap

from cbam_core.attention import SpatialAttention


def convolving_gate(kernel_size: int = 7) -> SpatialAttention:
    """A spatial gate that returns the convolution's output: no norm, no sigmoid."""
    gate = SpatialAttention(kernel_size, norm="none", init="timm")
    gate.activation = nn.Identity()
    return gate


def reference(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    maps = torch.stack((x.max(1).values, x.mean(1)), 1)
    return F.conv2d(maps, weight, padding=weight.shape[-1] // 2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kernel_size", [1, 3, 7, 9])
@pytest.mark.parametrize("shape", [(2, 8, 16, 16), (3, 4, 5, 9), (1, 4, 1, 1), (2, 4, 13, 2)])
def test_equals_an_fp64_convolution_forward_and_backward(shape, kernel_size, memory_format):
    gate = convolving_gate(kernel_size)
    x = torch.randn(shape).contiguous(memory_format=memory_format).requires_grad_()
    exact_x = x.detach().double().requires_grad_()
    exact_weight = gate.conv.weight.detach().double().requires_grad_()
    out, expected = gate.gate(x), reference(exact_x, exact_weight)
    gradient = torch.randn_like(expected)
    out.backward(gradient.float())
    expected.backward(gradient)

    torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), exact_x.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gate.conv.weight.grad.double(), exact_weight.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_reaches_the_kernel_and_no_further(value):
    gate = convolving_gate()
    x = torch.randn(1, 4, 16, 16)
    x[0, 0, 8, 8] = value
    reached = torch.zeros(16, 16, dtype=torch.bool)
    reached[5:12, 5:12] = True
    assert torch.equal(~gate.gate(x.requires_grad_())[0, 0].isfinite(), reached)


def test_the_same_bits_every_time():
    gate = convolving_gate()
    x = torch.randn(4, 8, 16, 16, requires_grad=True)
    first, second = (torch.autograd.grad(gate.gate(x).square().sum(), (x, gate.conv.weight)) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_gradients_per_image_add_up_to_the_gradient_of_the_batch():
    """torch.func.vmap of torch.func.grad goes through the gate."""
    gate = convolving_gate()
    weights = dict(gate.named_parameters())
    images = torch.randn(3, 4, 9, 9)

    def loss(weights: dict[str, torch.Tensor], image: torch.Tensor) -> torch.Tensor:
        return functional_call(gate, weights, (image[None],)).square().sum()

    per_image = vmap(grad(loss), (None, 0))(weights, images)["conv.weight"]
    gate(images).square().sum().backward()
    torch.testing.assert_close(per_image.sum(0), gate.conv.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("dtype", "trains", "channels_last"),
    [(torch.float32, True, True), (torch.float32, False, False), (torch.float64, True, False)],
)
def test_fp32_trains_in_channels_last_on_a_cpu(dtype, trains, channels_last):
    gate, seen = convolving_gate().to(dtype), []
    gate.conv.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    gate(torch.randn(2, 4, 8, 8, dtype=dtype, requires_grad=trains))
    assert seen[0].is_contiguous(memory_format=torch.channels_last) == channels_last
