"""Forward pass of the fused residual tail: eight kernels and two products of small matrices."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from cbam_core.fused import forward_kernels as kernels
from cbam_core.fused.launch import Tiling, on_device_of, power_of_two

MAP_ROWS = 256  # places of the spatial gate's map that one program convolves
POOL_TILE, POOL_COLS, POOL_WARPS = 2048, 64, 4  # of the pools over the places, a program for some of the channels
TILE, WARPS = 8192, 8  # of the passes that see all channels of a place at once


class Kept(NamedTuple):
    """What the forward pass leaves for the backward pass, beside z.

    out        N C H W, the result
    norm       5 C: mean, 1/std, weight, bias, biased variance of the norm before the attention; empty without one
    pooled     4 N C: average and maximum over H W of every channel, normalised only, and as the channel gate sees them
    index      N C: place of the maximum
    hidden     2N C/r: hidden units of the shared MLP, for the averages and for the maxima
    logits     N C: channel gate before its sigmoid
    maps       N 2 HW: maximum and average over the channels, which the spatial gate sees
    channel    N HW: channel of the maximum
    convolved  N HW: spatial gate before its norm
    spatial    5: mean, 1/std, scale, shift, biased variance of the spatial gate's norm
    """

    out: Tensor
    norm: Tensor
    pooled: Tensor
    index: Tensor
    hidden: Tensor
    logits: Tensor
    maps: Tensor
    channel: Tensor
    convolved: Tensor
    spatial: Tensor


def forward(
    z: Tensor,
    shortcut: Tensor,
    norm: list[Tensor],
    mlp: list[Tensor],
    gate: list[Tensor],
    *,
    norm_eps: float,
    gate_eps: float,
) -> Kept:
    """Compute relu(CBAM(norm(z)) + shortcut); see `operator.residual_tail` for the arguments."""
    n, c, height, width = z.shape
    places = height * width
    pool_tiling = Tiling.of(n, places, c, tile=POOL_TILE, cols=POOL_COLS)
    tiling = Tiling.of(n, places, c, tile=TILE)
    sizes = {"C": c, "P": places, "S": tiling.splits, "share": tiling.share}
    options = {"NORM": bool(norm), "ROWS": tiling.rows, "COLS": tiling.cols, "num_warps": WARPS}
    with on_device_of(z):
        parts = _pool_places(z, norm, pool_tiling)
        statistics = _norm_statistics(parts, norm, pool_tiling, eps=norm_eps, shape=z.shape)
        pooled, index = _merge_pools(z, statistics, parts, pool_tiling)
        hidden, logits = _channel_gate(pooled[2:], mlp)
        maps, convolved = _numbers(z, n, 2, places), _numbers(z, n, places)
        channel = torch.empty(n, places, dtype=torch.int32, device=z.device)
        kernels.pool_channels[(n * tiling.splits,)](z, statistics, logits, maps, channel, **sizes, **options)
        spatial = _spatial_gate(maps, convolved, gate, eps=gate_eps, shape=z.shape)
        out = torch.empty_like(z)
        kernels.refine[(n * tiling.splits,)](
            z, shortcut, statistics, logits, convolved, spatial, out, **sizes, **options
        )
    return Kept(out, statistics, pooled, index, hidden, logits, maps, channel, convolved, spatial)


def _numbers(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _pool_places(z: Tensor, norm: list[Tensor], tiling: Tiling) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, squared deviations, extreme and its place, of every channel in each program's share: N·splits C."""
    n, c, height, width = z.shape
    programs = n * tiling.splits
    means, squares, tops = _numbers(z, 3, programs, c).unbind()
    places = torch.empty(programs, c, dtype=torch.int32, device=z.device)
    kernels.pool_places[(programs, -(-c // tiling.cols))](
        z, norm[0] if norm else means, means, squares, tops, places,
        C=c, P=height * width, S=tiling.splits, share=tiling.share,
        NORM=bool(norm), ROWS=tiling.rows, COLS=tiling.cols, num_warps=POOL_WARPS,
    )  # fmt: skip
    return means, squares, tops, places


def _norm_statistics(
    parts: tuple[Tensor, ...], norm: list[Tensor], tiling: Tiling, *, eps: float, shape: torch.Size
) -> Tensor:
    """The rows of `Kept.norm`, of the batch or of the running statistics where they are given."""
    n, c, height, width = shape
    if not norm:
        return parts[0].new_empty(0)
    weight, bias, *running = (values.float() for values in norm)
    if running:
        mean, variance = running
        return torch.stack([mean, (variance + eps).rsqrt(), weight, bias, variance])
    statistics = parts[0].new_empty(5, c)
    kernels.batch_statistics[(-(-c // 16),)](
        parts[0], parts[1], weight, bias, statistics, eps,
        C=c, P=height * width, N=n, S=tiling.splits, share=tiling.share, ROWS=256, COLS=16, num_warps=8,
    )  # fmt: skip
    return statistics


def _merge_pools(z: Tensor, norm: Tensor, parts: tuple[Tensor, ...], tiling: Tiling) -> tuple[Tensor, Tensor]:
    """`Kept.pooled` and `Kept.index` from the parts of every share."""
    n, c, height, width = z.shape
    pooled, index = _numbers(z, 4, n, c), torch.empty(n, c, dtype=torch.int32, device=z.device)
    means, _, tops, places = parts
    cols = min(64, power_of_two(c))
    kernels.merge_pools[(-(-n // 16), -(-c // cols))](
        z, norm, means, tops, places, pooled, index,
        size=n * c, C=c, P=height * width, N=n, S=tiling.splits, share=tiling.share,
        NORM=norm.numel() > 0, ROWS=16, COLS=cols, num_warps=4,
    )  # fmt: skip
    return pooled, index


def _channel_gate(pooled: Tensor, mlp: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Hidden units (2N C/r) and logits (N C) of the channel gate for averages and maxima (2 N C), in fp32."""
    _, n, c = pooled.shape
    first, second, *biases = (values.float() for values in mlp)
    hidden = torch.relu_(F.linear(pooled.view(2 * n, c), first, biases[0] if biases else None))
    both = hidden[:n] + hidden[n:]  # W1 is linear: one product serves both pools, and its bias counts twice
    return hidden, torch.addmm(biases[1], both, second.t(), beta=2) if biases else both @ second.t()


def _spatial_gate(maps: Tensor, convolved: Tensor, gate: list[Tensor], *, eps: float, shape: torch.Size) -> Tensor:
    """Convolve `maps` into `convolved`, and return `Kept.spatial`."""
    n, _, height, width = shape
    weight, *norm = gate
    splits = -(-height * width // MAP_ROWS)
    moments = _numbers(maps, n * splits, 2)
    kernels.convolve_maps[(n, splits)](
        maps, weight, convolved, moments, H=height, W=width, KERNEL=weight.shape[-1], ROWS=MAP_ROWS, num_warps=4
    )
    if not norm:
        spatial = maps.new_zeros(5)
        spatial[1:3] = 1
        return spatial
    scale, shift, *running = (values.float() for values in norm)
    if running:
        mean, variance = running
        inverse_std = (variance + eps).rsqrt()
        return torch.cat([mean, inverse_std, scale * inverse_std, shift - mean * scale * inverse_std, variance])
    spatial = maps.new_empty(5)
    kernels.map_statistics[(1,)](
        moments, scale, shift, spatial, eps, P=height * width, N=n, S=splits, share=MAP_ROWS, ROWS=1024, num_warps=8
    )
    return spatial
