"""The forward and the backward pass of the fused residual tail: memory, then launches."""

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cbam_core.fused.launch import Argument, Layout, align, aligned
from cbam_core.fused.plan import Case, Weights, backward_plan, forward_plan


class Gradients(NamedTuple):
    """Gradients of the inputs that have one, each in the layout of its input; None where there is no such weight."""

    z: Tensor
    shortcut: Tensor
    norm_weight: Tensor | None
    norm_bias: Tensor | None
    fc1_weight: Tensor
    fc1_bias: Tensor | None
    fc2_weight: Tensor
    fc2_bias: Tensor | None
    conv_weight: Tensor
    gate_weight: Tensor | None
    gate_bias: Tensor | None


def forward(case: Case, z: Tensor, shortcut: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    """Return relu(CBAM(norm(z)) + shortcut), N C H W in channels_last, and the buffer of `plan.kept_layout`."""
    with _device_of(z):
        return _forward(case, z, shortcut, weights)


def _forward(case: Case, z: Tensor, shortcut: Tensor, weights: Weights) -> tuple[Tensor, Tensor]:
    plan = forward_plan(case)
    z, shortcut = _usable(z), _usable(shortcut)
    out, kept, scratch = torch.empty_like(z), plan.kept.allocate(z), plan.scratch.allocate(z)
    fast = plan.compiled and aligned(*(weight for weight in weights if weight is not None))
    norm, pooled, index, hidden, logits, maps, channel, convolved, spatial = _pieces(plan.kept, kept, fast)
    means, squares, tops, places, moments = _pieces(plan.scratch, scratch, fast)
    z_, shortcut_, out_ = (_argument(tensor, fast) for tensor in (z, shortcut, out))
    w = [norm if weight is None else _argument(weight, fast) for weight in weights]  # what is not there is not read
    plan.pool_places(z_, w[0], means, squares, tops, places)
    plan.pool_statistics(z_, means, squares, tops, places, *w[:5], norm, pooled, index)
    plan.hidden_units(pooled, w[5], w[6], hidden)
    plan.gate_logits(hidden, w[7], w[8], logits)
    plan.pool_channels(z_, norm, logits, maps, channel)
    plan.convolve_maps(maps, w[9], convolved, moments)
    plan.map_statistics(moments, *w[10:], spatial)
    plan.refine(z_, shortcut_, norm, logits, convolved, spatial, out_)
    return out, kept


def backward(case: Case, gradient: Tensor, weights: Weights, *, z: Tensor, out: Tensor, kept: Tensor) -> Gradients:
    """Return the gradients from that of the result, `out` (N C H W), of z and the shortcut.

    Of `weights` only the MLP's and the convolution's are read.
    """
    with _device_of(z):
        return _backward(case, gradient, weights, z=z, out=out, kept=kept)


def _backward(case: Case, gradient: Tensor, weights: Weights, *, z: Tensor, out: Tensor, kept: Tensor) -> Gradients:
    plan = backward_plan(case)
    gradient, z, out = _usable(gradient), _usable(z), _usable(out)  # hooks of saved tensors may lay them out otherwise
    made = _empty_gradients(z, weights)
    scratch = plan.scratch.allocate(z)
    read = (weights.fc1_weight, weights.fc2_weight, weights.conv_weight)
    fast = plan.compiled and aligned(*read)
    norm, pooled, index, hidden, logits, maps, channel, convolved, spatial = _pieces(plan.kept, kept, fast)
    (
        gate_gradient, spatial_sums, spatial_part, pooled_part, map_gradients, parts,
        logit_gradients, direct, hidden_gradients, pool_gradients, unused,
    ) = _pieces(plan.scratch, scratch, fast)  # fmt: skip
    gradient_, z_, out_ = (_argument(tensor, fast) for tensor in (gradient, z, out))
    fc1, fc2, conv = (_argument(weight, fast) for weight in read)
    g: Any = Gradients(*(unused if tensor is None else _argument(tensor, fast) for tensor in made))  # type: ignore[arg-type]
    plan.spatial_gradient(
        gradient_, out_, z_, norm, logits, convolved, spatial, g.shortcut, gate_gradient, spatial_part, spatial_sums
    )
    plan.map_norm_gradient(spatial_sums, gate_gradient, convolved, spatial, g.gate_bias, g.gate_weight)
    plan.convolve_maps_backward(gate_gradient, maps, conv, map_gradients, parts)
    plan.convolution_gradient(parts, g.conv_weight)
    plan.pool_channels_backward(z_, norm, map_gradients, channel, pooled_part)
    plan.channel_gradient(norm, logits, spatial_part, pooled_part, logit_gradients, direct)
    plan.hidden_gradients(logit_gradients, fc2, hidden, hidden_gradients)
    plan.pool_gradients(hidden_gradients, fc1, pooled, direct, pool_gradients, g.norm_bias, g.norm_weight)
    plan.mlp_gradients(
        hidden_gradients, hidden, logit_gradients, pooled, g.fc1_weight, g.fc1_bias, g.fc2_weight, g.fc2_bias
    )
    plan.refine_backward(
        g.shortcut, z_, norm, logits, convolved, spatial, map_gradients, channel, pool_gradients, index,
        g.norm_bias, g.norm_weight, g.z,
    )  # fmt: skip
    if all(weight is None or weight.dtype == torch.float32 for weight in weights):
        return made
    return Gradients(z=made.z, shortcut=made.shortcut, **_as_given(made, weights))


def _device_of(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Launch on the GPU where `x` lies, whichever is the current one."""
    device: contextlib.AbstractContextManager[None] = (
        torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()
    )
    return device


def _usable(x: Tensor) -> Tensor:
    return align(x.contiguous(memory_format=torch.channels_last))


def _argument(tensor: Tensor, fast: bool) -> Argument:
    return tensor.data_ptr() if fast else tensor


def _pieces(layout: Layout, buffer: Tensor, fast: bool) -> Sequence[Argument]:
    return layout.addresses(buffer) if fast else list(layout.tensors(buffer).values())


def _empty_gradients(z: Tensor, weights: Weights) -> Gradients:
    """Room for all gradients: of weights in fp32, since sums that are used on the way do not fit fp16."""
    rooms = {
        name: None if weight is None else torch.empty_like(weight, dtype=torch.float32)
        for name, weight in weights._asdict().items()
        if name in Gradients._fields
    }
    return Gradients(torch.empty_like(z), torch.empty_like(z), **rooms)  # type: ignore[arg-type]


def _as_given(made: Gradients, weights: Weights) -> dict[str, Any]:
    names = Gradients._fields[2:]
    pairs = ((name, getattr(made, name), getattr(weights, name)) for name in names)
    return {name: None if weight is None else gradient.to(weight.dtype) for name, gradient, weight in pairs}
