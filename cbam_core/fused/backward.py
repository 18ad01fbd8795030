"""Backward pass of the fused residual tail: eight kernels and four products of small matrices."""

from typing import NamedTuple

import torch
from torch import Tensor

from cbam_core.fused import backward_kernels as kernels
from cbam_core.fused.forward import Kept
from cbam_core.fused.launch import Tiling, on_device_of, power_of_two

TILE, WARPS = 4096, 8  # of the passes with sums over the places, which hold two more tiles
REFINE_TILE, REFINE_WARPS = 4096, 8
MAP_TILE, MAP_WARPS = 2048, 4


class Gradients(NamedTuple):
    """Gradients of all that the forward pass was given; `norm` (2 C) and `gate_norm` (2) are bias, then weight."""

    z: Tensor
    shortcut: Tensor
    norm: Tensor
    fc1_weight: Tensor
    fc1_bias: Tensor
    fc2_weight: Tensor
    fc2_bias: Tensor
    convolution: Tensor
    gate_norm: Tensor


def backward(
    gradient: Tensor, z: Tensor, kept: Kept, weights: list[Tensor], *, norm_of_batch: bool, gate_of_batch: bool
) -> Gradients:
    """Gradients from that of the result (N C H W); see `operator.residual_tail_backward` for the arguments."""
    n, c, height, width = z.shape
    places, has_norm = height * width, kept.norm.numel() > 0
    tiling = Tiling.of(n, places, c, tile=TILE)
    grid, sizes = (n * tiling.splits,), {"C": c, "P": places, "S": tiling.splits, "share": tiling.share}
    options = {"NORM": has_norm, "ROWS": tiling.rows, "COLS": tiling.cols, "num_warps": WARPS}
    fc1_weight, fc2_weight, conv_weight = (weight.float() for weight in weights)
    with on_device_of(z):
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        masked, gate_gradient = torch.empty_like(gradient), torch.empty_like(kept.convolved)
        spatial_sums = kept.convolved.new_empty(n * tiling.splits, 2)
        first, second = kept.convolved.new_empty(2, n * tiling.splits, 2, c).unbind()
        kernels.spatial_gradient[grid](
            gradient, kept.out, z, kept.norm, kept.logits, kept.convolved, kept.spatial,
            masked, gate_gradient, first, spatial_sums, **sizes, **options,
        )  # fmt: skip
        gate_norm = kept.convolved.new_empty(2)
        kernels.map_norm_gradient[(1,)](spatial_sums, gate_norm, programs=n * tiling.splits, ROWS=1024, num_warps=8)
        map_gradients, convolution = _convolution_gradient(
            gate_gradient, gate_norm, kept, conv_weight, batch_norm=gate_of_batch, size=(height, width)
        )
        kernels.pool_channels_backward[grid](z, kept.norm, map_gradients, kept.channel, second, **sizes, **options)
        logit_gradients, direct = _logit_gradients(kept, first, second, splits=tiling.splits)
        pooled_gradients, mlp = _mlp_gradients(logit_gradients, kept, fc1_weight, fc2_weight)
        norm = _norm_gradients(direct, pooled_gradients, kept)
        z_gradient, tiling = torch.empty_like(z), Tiling.of(n, places, c, tile=REFINE_TILE)
        kernels.refine_backward[(n * tiling.splits,)](
            masked, z, kept.norm, kept.logits, kept.convolved, kept.spatial, map_gradients, kept.channel,
            pooled_gradients, kept.index, norm, z_gradient, elements=float(n * places), size=n * c,
            C=c, P=places, S=tiling.splits, share=tiling.share, NORM=has_norm, BATCH_NORM=has_norm and norm_of_batch,
            ROWS=tiling.rows, COLS=tiling.cols, num_warps=REFINE_WARPS,
        )  # fmt: skip
    return Gradients(z_gradient, masked, norm, *mlp, convolution, gate_norm)


def _convolution_gradient(
    gate_gradient: Tensor,
    gate_norm: Tensor,
    kept: Kept,
    weight: Tensor,
    *,
    batch_norm: bool,
    size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """Gradients of both maps (N 2 HW) and of the convolution's weight (1 2 K K)."""
    n, places = gate_gradient.shape
    kernel = weight.shape[-1]
    taps = power_of_two(kernel * kernel)
    tiling = Tiling.of(n, places, taps, tile=MAP_TILE)
    map_gradients, parts = torch.empty_like(kept.maps), kept.maps.new_empty(n * tiling.splits, 2, taps)
    kernels.convolve_maps_backward[(n * tiling.splits,)](
        gate_gradient, kept.convolved, kept.spatial, gate_norm, kept.maps, weight, map_gradients, parts,
        elements=float(n * places), H=size[0], W=size[1], S=tiling.splits, share=tiling.share,
        BATCH_NORM=batch_norm, KERNEL=kernel, TAPS=taps, ROWS=tiling.rows, num_warps=MAP_WARPS,
    )  # fmt: skip
    return map_gradients, parts.sum(0)[:, : kernel * kernel].reshape(weight.shape)


def _logit_gradients(kept: Kept, first: Tensor, second: Tensor, *, splits: int) -> tuple[Tensor, Tensor]:
    """Gradients of the channel gate's logits (N C), and what passes by the gate to the norm (2 N C)."""
    n, c = kept.logits.shape
    gradients, direct = torch.empty_like(kept.logits), kept.logits.new_empty(2, n, c)
    kernels.channel_gradient[(n, -(-c // 256))](
        kept.norm, kept.logits, first, second, gradients, direct, size=n * c, C=c, S=splits,
        NORM=kept.norm.numel() > 0, COLS=256, num_warps=4,
    )  # fmt: skip
    return gradients, direct


def _mlp_gradients(
    logits: Tensor, kept: Kept, fc1_weight: Tensor, fc2_weight: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Gradients of both pools (2 N C), and of the shared MLP's weights and biases, from those of the logits (N C)."""
    n, c = logits.shape
    hidden = kept.hidden
    of_hidden = logits @ fc2_weight
    of_fc2, of_fc2_bias = logits.t() @ (hidden[:n] + hidden[n:]), logits.sum(0).mul_(2)
    both = torch.where(hidden.view(2, n, -1) <= 0, 0, of_hidden).view(2 * n, -1)
    of_fc1, of_fc1_bias = both.t() @ kept.pooled[2:].view(2 * n, c), both.sum(0)
    return (both @ fc1_weight).view(2, n, c), (of_fc1, of_fc1_bias, of_fc2, of_fc2_bias)


def _norm_gradients(direct: Tensor, pooled_gradients: Tensor, kept: Kept) -> Tensor:
    """Gradients of the norm's bias and weight (2 C); empty without a norm."""
    if not kept.norm.numel():
        return direct.new_empty(0)
    _, n, c = direct.shape
    gradients = direct.new_empty(2, c)
    kernels.norm_gradient[(-(-c // 16),)](
        direct, kept.pooled, pooled_gradients, gradients, size=n * c, C=c, N=n, ROWS=128, COLS=16, num_warps=4
    )
    return gradients
