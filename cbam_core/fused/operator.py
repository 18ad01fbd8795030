"""The fused residual tail, differentiable: as an autograd function for eager mode, as an operator for torch.compile.

Both run the same passes. The function moves running statistics in its kernels; the operator, of which the compiler
wants that it changes nothing, leaves that to its caller. The function costs a host less than the operator.
"""

from typing import Any

import torch
from torch import Tensor

from cbam_core.fused.passes import Gradients, backward, forward
from cbam_core.fused.plan import Case, Weights, case_of, kept_layout

_WITHOUT = Weights(*[None] * len(Weights._fields))  # type: ignore[arg-type]


class ResidualTail(torch.autograd.Function):
    """relu(CBAM(norm(z)) + shortcut) of a `Case`, z and shortcut N C H W in channels_last, then the `Weights`."""

    @staticmethod
    def forward(ctx: Any, case: Case, z: Tensor, shortcut: Tensor, *weights: Tensor | None) -> Tensor:
        """Return the result, N C H W."""
        given = Weights(*weights)  # type: ignore[arg-type]
        out, kept = forward(case, z, shortcut, given)
        ctx.case = case
        ctx.save_for_backward(z, out, kept, *_of_gradients(given))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients in the places of forward's arguments. Raises RuntimeError for second ones."""
        if torch.is_grad_enabled():  # by create_graph; once_differentiable looks at the incoming gradient alone
            raise RuntimeError('the fused tail has no second derivative; set `fused` of the CBAM modules to "off"')
        z, out, kept, *weights = ctx.saved_tensors
        given = _WITHOUT._replace(**dict(zip(Gradients._fields[2:], weights, strict=True)))
        made = backward(ctx.case, gradient, given, z=z, out=out, kept=kept)
        return None, made.z, made.shortcut, *(getattr(made, name, None) for name in Weights._fields)


def _of_gradients(weights: Weights) -> list[Tensor | None]:
    return [getattr(weights, name) for name in Gradients._fields[2:]]


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
) -> tuple[Tensor, Tensor]:
    """Return relu(CBAM(norm(z)) + shortcut), N C H W in channels_last, and the buffer of `plan.kept_layout`.

    norm  weight and bias (C) of the norm before the attention, and running mean and variance where they are to be
          used instead of the batch's; empty where no norm is fused
    mlp   weights of both layers of the channel gate (C/r C, C C/r), and both biases where it has them
    gate  weight of the spatial gate's convolution (1 2 K K), of maximum and average; weight and bias of its norm (1)
          if it has one, and running mean and variance likewise
    """
    weights = _weights(norm, mlp, gate)
    return forward(_case(z, weights, norm_eps, gate_eps), z, shortcut, weights)


@torch.library.custom_op("cbam_core::residual_tail_backward", mutates_args=())
def residual_tail_backward(
    gradient: Tensor,
    z: Tensor,
    kept: list[Tensor],
    norm: list[Tensor],
    gate_and_mlp: list[Tensor],
    *,
    mlp: int,
    norm_eps: float,
    gate_eps: float,
) -> list[Tensor]:
    """Return the gradients of z, shortcut and the weights that are there, in the order of `Gradients`.

    `kept` is what `residual_tail` returned; of `gate_and_mlp` the first `mlp` are the MLP's.
    """
    weights = _weights(norm, gate_and_mlp[:mlp], gate_and_mlp[mlp:])
    case = _case(z, weights, norm_eps, gate_eps)
    made = backward(case, gradient, weights, z=z, out=kept[0], kept=kept[1])
    return [value for value in made if value is not None]


def _weights(*given: list[Any]) -> Weights:
    norm, mlp, gate = given
    norm_weight, norm_bias, norm_mean, norm_variance = (norm + [None] * 4)[:4]
    fc1_weight, fc2_weight, fc1_bias, fc2_bias = (mlp + [None] * 2)[:4]
    conv_weight, gate_weight, gate_bias, gate_mean, gate_variance = (gate + [None] * 4)[:5]
    return Weights(
        norm_weight, norm_bias, norm_mean, norm_variance, None, fc1_weight, fc1_bias, fc2_weight, fc2_bias,
        conv_weight, gate_weight, gate_bias, gate_mean, gate_variance, None,
    )  # fmt: skip


def _case(z: Tensor, weights: Weights, norm_eps: float, gate_eps: float) -> Case:
    return case_of(z, weights, track=(False, False), eps=(norm_eps, gate_eps), momentum=(0.0, 0.0))


@residual_tail.register_fake
def _(z: Tensor, _shortcut: Tensor, _norm: Any, mlp: list[Tensor], _gate: Any, **_: float) -> tuple[Tensor, Tensor]:
    n, c, height, width = z.shape
    layout = kept_layout(n, c, height * width, mlp[0].shape[0])
    return torch.empty_like(z), layout.allocate(z)


@residual_tail_backward.register_fake
def _(
    _gradient: Tensor, z: Tensor, _kept: Any, norm: list[Tensor], gate_and_mlp: list[Tensor], *, mlp: int, **_: float
) -> list[Tensor]:
    weights = _weights(norm, gate_and_mlp[:mlp], gate_and_mlp[mlp:])
    of_weights = [torch.empty_like(weight) for weight in _of_gradients(weights) if weight is not None]
    return [torch.empty_like(z), torch.empty_like(z), *of_weights]


def _set_up(
    ctx: Any, inputs: tuple[Any, ...], keyword_only_inputs: dict[str, Any], output: tuple[Tensor, Tensor]
) -> None:
    z, _, norm, mlp, gate = inputs
    ctx.lengths, ctx.eps = (len(norm), len(mlp), len(gate)), keyword_only_inputs
    ctx.save_for_backward(z, *output, *norm, *mlp, *gate)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, gradient: Tensor | None, _: None) -> tuple[Any, ...]:
    """Gradients in the places of the inputs; running statistics have none."""
    norms, mlps, gates = ctx.lengths
    if gradient is None:
        return None, None, [None] * norms, [None] * mlps, [None] * gates
    z, out, kept, *weights = ctx.saved_tensors
    norm, rest = weights[:norms], weights[norms:]
    made = iter(residual_tail_backward(gradient, z, [out, kept], norm, rest, mlp=mlps, **ctx.eps))
    of_z, of_shortcut = next(made), next(made)
    of_norm = [*(next(made) for _ in norm[:2]), *(None for _ in norm[2:])]
    of_mlp = [next(made) for _ in range(mlps)]
    if mlps == 4:
        of_mlp = [of_mlp[0], of_mlp[2], of_mlp[1], of_mlp[3]]
    of_gate = [*(next(made) for _ in range(min(gates, 3))), *(None for _ in range(gates - 3))]
    return of_z, of_shortcut, of_norm, of_mlp, of_gate


residual_tail.register_autograd(_differentiate, setup_context=_set_up)
