"""The fused residual tail as one differentiable operator: relu(CBAM(norm(z)) + shortcut), into which no compiler looks."""

from typing import Any

import torch
from torch import Tensor

from cbam_core.fused.backward import Gradients, backward
from cbam_core.fused.forward import Kept, forward

Ten = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]
Nine = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("cbam_core::residual_tail", mutates_args=())
def residual_tail(
    z: Tensor,
    shortcut: Tensor,
    norm: list[Tensor],
    mlp: list[Tensor],
    gate: list[Tensor],
    *,
    norm_eps: float,
    gate_eps: float,
) -> Ten:
    """Compute relu(CBAM(norm(z)) + shortcut) for z and shortcut, N C H W in channels_last; `Kept` names what it returns.

    norm  weight and bias (C) of the norm before the attention, and running mean and variance where they are to be
          used instead of the batch's; empty where no norm is fused
    mlp   weights of both layers of the channel gate (C/r C, C C/r), and both biases where it has them
    gate  weight of the spatial gate's convolution (1 2 K K), of maximum and average; weight and bias of its norm (1)
          if it has one, and running mean and variance likewise
    """
    return forward(z, shortcut, norm, mlp, gate, norm_eps=norm_eps, gate_eps=gate_eps)


@torch.library.custom_op("cbam_core::residual_tail_backward", mutates_args=())
def residual_tail_backward(
    gradient: Tensor, z: Tensor, kept: list[Tensor], weights: list[Tensor], *, norm_of_batch: bool, gate_of_batch: bool
) -> Nine:
    """Compute the `Gradients` from that of the result (N C H W).

    `kept` is what `residual_tail` returned, `weights` are those of the MLP's layers and of the convolution, and
    `*_of_batch` say which norm took its statistics from the batch.
    """
    options = {"norm_of_batch": norm_of_batch, "gate_of_batch": gate_of_batch}
    return backward(gradient, z, Kept(*kept), weights, **options)


@residual_tail.register_fake
def _(z: Tensor, shortcut: Tensor, norm: list[Tensor], mlp: list[Tensor], gate: list[Tensor], **_: float) -> Ten:
    n, c, height, width = z.shape
    places = height * width

    def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return z.new_empty(shape, dtype=dtype)

    return Kept(
        out=torch.empty_like(z),
        norm=numbers(5, c) if norm else numbers(0),
        pooled=numbers(4, n, c),
        index=numbers(n, c, dtype=torch.int32),
        hidden=numbers(2 * n, mlp[0].shape[0]),
        logits=numbers(n, c),
        maps=numbers(n, 2, places),
        channel=numbers(n, places, dtype=torch.int32),
        convolved=numbers(n, places),
        spatial=numbers(5),
    )


@residual_tail_backward.register_fake
def _(gradient: Tensor, z: Tensor, kept: list[Tensor], weights: list[Tensor], **_: bool) -> Nine:
    fc1, fc2, convolution = weights
    (hidden, c), numbers = fc1.shape, kept[-1].new_empty
    return Gradients(
        z=torch.empty_like(z),
        shortcut=torch.empty_like(gradient, memory_format=torch.channels_last),
        norm=numbers(2, c) if kept[1].numel() else numbers(0),
        fc1_weight=numbers(hidden, c),
        fc1_bias=numbers(hidden),
        fc2_weight=numbers(c, hidden),
        fc2_bias=numbers(c),
        convolution=numbers(convolution.shape),
        gate_norm=numbers(2),
    )


def _set_up(ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: Ten) -> None:
    z, _, norm, mlp, gate = inputs
    ctx.norm, ctx.mlp, ctx.gate = ([value.dtype for value in values] for values in (norm, mlp, gate))
    ctx.save_for_backward(z, mlp[0], mlp[1], gate[0], *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, gradient: Tensor | None, *_: None) -> tuple[Any, ...]:
    """Gradients in the places and types of the inputs; running statistics have none."""
    if gradient is None:
        return None, None, [None] * len(ctx.norm), [None] * len(ctx.mlp), [None] * len(ctx.gate)
    z, fc1, fc2, convolution, *kept = ctx.saved_tensors
    made = Gradients(
        *residual_tail_backward(
            gradient,
            z,
            kept,
            [fc1, fc2, convolution],
            norm_of_batch=len(ctx.norm) == 2,
            gate_of_batch=len(ctx.gate) == 3,
        )  # fmt: skip
    )
    norm = _as_given(ctx.norm, made.norm[1], made.norm[0]) if ctx.norm else []
    mlp = _as_given(ctx.mlp, made.fc1_weight, made.fc2_weight, made.fc1_bias, made.fc2_bias)
    gate = _as_given(ctx.gate, made.convolution, made.gate_norm[1:], made.gate_norm[:1])
    return made.z, made.shortcut, norm, mlp, gate


def _as_given(dtypes: list[torch.dtype], *gradients: Tensor) -> list[Tensor | None]:
    cast = [gradient.to(dtype) for gradient, dtype in zip(gradients, dtypes, strict=False)]
    return [*cast, *[None] * (len(dtypes) - len(cast))]


residual_tail.register_autograd(_differentiate, setup_context=_set_up)
