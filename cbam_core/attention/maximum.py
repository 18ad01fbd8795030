"""The maximum over one axis, with a gradient that does not depend on the device or on chance."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

_ONE_BYTE = 1 << 8
_TWO_BYTES = 1 << 16
_TORCH = tuple(map(int, torch.__version__.split(".")[:2]))
_FUSES_INDEX_WRONGLY = _TORCH < (2, 14)  # inductor on CPUs, silently: pytorch/pytorch#174073, #178964


def max_over(x: Tensor, dim: int) -> Tensor:
    """The maximum over `dim`; the gradient of a tie goes to its lowest index, whole.

    `amax` would share it among the ties (in bf16 one row in fifty has one), and AdaptiveMaxPool has no deterministic
    backward on CUDA. Without a gradient the two maxima are equal, and `amax` is several times faster on a CPU.
    """
    if (torch.is_grad_enabled() and x.requires_grad) or _in_forward_mode():
        maximum = _Maximum if torch.compiler.is_compiling() else _EagerMaximum
        values: Tensor = maximum.apply(x, dim)[0]
        return values
    return x.amax(dim)


def _in_forward_mode() -> bool:
    return not torch.compiler.is_compiling() and forward_ad._current_level >= 0


class _Maximum(torch.autograd.Function):
    """torch.max over one axis that keeps each index in one, two or four bytes, not eight.

    So CBAM keeps as little for its backward as it would with `amax`, which keeps the maxima.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        hidden = _FUSES_INDEX_WRONGLY and torch.compiler.is_compiling() and x.device.type == "cpu"
        values, index = _max_of_one_piece(x, dim) if hidden else x.max(dim)
        if x.shape[dim] <= _ONE_BYTE:
            return values, index.to(torch.uint8)
        return values, index.to(torch.int16 if x.shape[dim] <= _TWO_BYTES else torch.int32)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        x, ctx.dim = inputs
        ctx.shape = x.shape
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None]:
        index = _indices(*ctx.saved_tensors)
        if torch.compiler.is_compiling():  # a comparison fuses with what comes before and after it, a scatter does not
            places = torch.arange(ctx.shape[ctx.dim], device=gradient.device)
            places = places.view([-1 if axis == ctx.dim % len(ctx.shape) else 1 for axis in range(len(ctx.shape))])
            return torch.where(places == index.unsqueeze(ctx.dim), gradient.unsqueeze(ctx.dim), 0), None
        spread = gradient.new_zeros(ctx.shape)
        return spread.scatter(ctx.dim, index.unsqueeze(ctx.dim), gradient.unsqueeze(ctx.dim)), None


class _EagerMaximum(_Maximum):
    """The same with a rule for forward mode, which `torch.func.hessian` needs, and which no compiler can trace."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: tuple[Tensor, Tensor]) -> None:
        _Maximum.setup_context(ctx, inputs, output)
        ctx.save_for_forward(output[1])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> tuple[Tensor, None]:
        index = _indices(*ctx.saved_tensors)
        return tangent.gather(ctx.dim, index.unsqueeze(ctx.dim)).squeeze(ctx.dim), None


def _indices(kept: Tensor) -> Tensor:
    """The indices that were kept in one, two or four bytes; two bytes hold those above 32 767 as negative numbers."""
    return kept.long() & (_TWO_BYTES - 1) if kept.dtype == torch.int16 else kept.long()


@torch.library.custom_op("cbam_core::max_of_one_piece", mutates_args=())
def _max_of_one_piece(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """`torch.max` over one axis, into which no compiler looks: nothing can be fused with it."""
    values, index = x.max(dim)
    return values, index


@_max_of_one_piece.register_fake
def _(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    values = x.amax(dim)
    return values, torch.empty_like(values, dtype=torch.int64)
