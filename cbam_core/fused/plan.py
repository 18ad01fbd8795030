"""All launches of the fused residual tail for one shape, made once and kept."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from cbam_core.fused import backward_kernels, forward_kernels
from cbam_core.fused.launch import Launch, Layout, Tiling, power_of_two

MAP_ROWS = 256  # places of the spatial gate's map that one program convolves
NONE, BATCH, RUNNING = 0, 1, 2
PRECISION = "tf32x3"  # three products of tensor cores: as exact as fp32 for what the gates need


class Case(NamedTuple):
    """What distinguishes one plan from another.

    shape      N, C, H, W of the feature map
    hidden     units of the shared MLP; `bias`: whether it has biases
    kernel     side of the spatial convolution; `strides`: of its weight from map to map and from tap to tap
    norm       the norm before the attention: NONE, BATCH or RUNNING statistics; `gate_norm`: the spatial gate's
    track      whether running statistics move, of the norm and of the gate's
    eps        of both norms; `momentum`: likewise
    types      of the map and of all weights; `device`: where they lie
    """

    shape: tuple[int, int, int, int]
    hidden: int
    bias: bool
    kernel: int
    strides: tuple[int, int]
    norm: int
    gate_norm: int
    track: tuple[bool, bool]
    eps: tuple[float, float]
    momentum: tuple[float, float]
    types: tuple[torch.dtype, ...]
    device: torch.device


class Weights(NamedTuple):
    """The tensors of the norm, of the CBAM and of its norm; None where a module has none. `*_batches` count batches."""

    norm_weight: Tensor | None
    norm_bias: Tensor | None
    norm_mean: Tensor | None
    norm_variance: Tensor | None
    norm_batches: Tensor | None
    fc1_weight: Tensor
    fc1_bias: Tensor | None
    fc2_weight: Tensor
    fc2_bias: Tensor | None
    conv_weight: Tensor
    gate_weight: Tensor | None
    gate_bias: Tensor | None
    gate_mean: Tensor | None
    gate_variance: Tensor | None
    gate_batches: Tensor | None


def case_of(
    z: Tensor, weights: Weights, *, track: tuple[bool, bool], eps: tuple[float, float], momentum: tuple[float, float]
) -> Case:
    """The case of a feature map, N C H W, and the weights. Norms without running statistics take the batch's."""
    n, c, height, width = z.shape
    convolution = weights.conv_weight
    return Case(
        shape=(n, c, height, width),
        hidden=weights.fc1_weight.shape[0],
        bias=weights.fc1_bias is not None,
        kernel=convolution.shape[-1],
        strides=(convolution.stride(1), convolution.stride(3)),
        norm=_statistics(weights.norm_weight, weights.norm_mean, track[0]),
        gate_norm=_statistics(weights.gate_weight, weights.gate_mean, track[1]),
        track=track,
        eps=eps,
        momentum=momentum,
        types=(z.dtype, *(weight.dtype for weight in weights if weight is not None)),
        device=z.device,
    )


def _statistics(weight: Tensor | None, mean: Tensor | None, track: bool) -> int:
    if weight is None:
        return NONE
    return BATCH if track or mean is None else RUNNING


def kept_layout(n: int, c: int, places: int, hidden: int) -> Layout:
    """What the forward pass leaves for the backward pass, beside its input and its result.

    norm       5 C: mean, 1/std, weight, bias and biased variance of the norm before the attention
    pooled     4 N C: average and maximum over H W of every channel, normalised only, and as the channel gate sees them
    index      N C: place of the maximum
    hidden     2N C/r: hidden units of the shared MLP, for the averages and for the maxima
    logits     N C: channel gate before its sigmoid
    maps       N 2 HW: maximum and average over the channels, which the spatial gate sees
    channel    N HW: channel of the maximum
    convolved  N HW: spatial gate before its norm
    spatial    5: mean, 1/std, scale, shift and biased variance of the spatial gate's norm
    """
    return Layout(
        {
            "norm": 5 * c,
            "pooled": 4 * n * c,
            "index": n * c,
            "hidden": 2 * n * hidden,
            "logits": n * c,
            "maps": 2 * n * places,
            "channel": n * places,
            "convolved": n * places,
            "spatial": 5,
        }
    )


class ForwardPlan:
    """Eight launches, and the memory they need."""

    def __init__(self, case: Case) -> None:
        n, c, height, width = case.shape
        places, values = height * width, float(n * height * width)
        sums, each = Tiling.for_sums(n, places, c), Tiling.for_each(n, places, c)
        self.kept = kept_layout(n, c, places, case.hidden)
        programs, map_splits = n * sums.splits, -(-places // MAP_ROWS)
        parts = {name: programs * c for name in ("means", "squares", "tops", "places")}
        self.scratch = Layout(parts | {"moments": 2 * n * map_splits})
        sizes, cols = (c, places, sums.splits, sums.share), min(256, power_of_two(c))
        rows, wide = min(1024 // cols, power_of_two(sums.share)), {"COLS": power_of_two(c)}
        kernels, bias = forward_kernels, {"BIAS": int(case.bias)}
        self.pool_places = Launch(
            kernels.pool_places, (programs, -(-c // cols)), sizes, warps=1, NORM=case.norm, ROWS=rows, COLS=cols
        )
        self.pool_statistics = Launch(
            kernels.pool_statistics,
            (-(-c // 16),),
            (case.eps[0], case.momentum[0], values, n * c, c, places, n, sums.splits, sums.share),
            warps=8, NORM=case.norm, TRACK=int(case.track[0]), ROWS=256, COLS=16, IMAGES=min(128, power_of_two(n)),
        )  # fmt: skip
        self.hidden_units = Launch(
            kernels.hidden_units, (-(-2 * n // 16), -(-case.hidden // 16)), (n * c, c, case.hidden, 2 * n),
            warps=4, **bias, ROWS=16, COLS=16, INNER=128, PRECISION=PRECISION,
        )  # fmt: skip
        self.gate_logits = Launch(
            kernels.gate_logits, (-(-n // 16), -(-c // 32)), (c, case.hidden, n), warps=4, **bias, ROWS=16, COLS=32, INNER=32, PRECISION=PRECISION
        )
        self.pool_channels = Launch(
            kernels.pool_channels, (programs,), sizes, warps=sums.warps, NORM=case.norm, ROWS=sums.rows, **wide, STAGES=1
        )
        self.convolve_maps = Launch(
            kernels.convolve_maps, (n, map_splits), (height, width, *case.strides), warps=4, KERNEL=case.kernel, ROWS=MAP_ROWS
        )
        self.map_statistics = Launch(
            kernels.map_statistics, (1,), (case.eps[1], case.momentum[1], values, places, n, map_splits, MAP_ROWS),
            warps=8, MODE=case.gate_norm, TRACK=int(case.track[1]), ROWS=1024,
        )  # fmt: skip
        self.refine = Launch(
            kernels.refine, (n * each.splits,), (c, places, each.splits, each.share),
            warps=each.warps, NORM=case.norm, ROWS=each.rows, **wide,
        )  # fmt: skip

    @property
    def compiled(self) -> bool:
        """Whether all its launches are; the last one is compiled last."""
        return self.refine.compiled


class BackwardPlan:
    """Ten launches, and the memory they need."""

    def __init__(self, case: Case) -> None:
        n, c, height, width = case.shape
        hidden, places, values = case.hidden, height * width, float(n * height * width)
        sums, each = Tiling.for_sums(n, places, c), Tiling.for_each(n, places, c)
        taps = power_of_two(case.kernel**2)
        maps = Tiling.for_sums(n, places, taps)
        self.kept = kept_layout(n, c, places, hidden)
        self.scratch = Layout(
            {
                "gate_gradient": n * places,
                "spatial_sums": 2 * n * sums.splits,
                "spatial_part": 2 * n * sums.splits * c,
                "pooled_part": 2 * n * sums.splits * c,
                "map_gradients": 2 * n * places,
                "parts": 2 * n * maps.splits * taps,
                "logit_gradients": n * c,
                "direct": 2 * n * c,
                "hidden_gradients": 2 * n * hidden,
                "pool_gradients": 2 * n * c,
                "unused": max(c, hidden),
            }
        )
        kernels, sizes = backward_kernels, (c, places, sums.splits, sums.share)
        summed = {"warps": sums.warps, "NORM": case.norm, "ROWS": sums.rows, "COLS": power_of_two(c), "STAGES": 1}
        self.spatial_gradient = Launch(kernels.spatial_gradient, (n * sums.splits,), sizes, **summed)
        self.map_norm_gradient = Launch(kernels.map_norm_gradient, (1,), (n * sums.splits,), warps=8, ROWS=1024)
        self.convolve_maps_backward = Launch(
            kernels.convolve_maps_backward, (n * maps.splits,),
            (values, height, width, maps.splits, maps.share, *case.strides),
            warps=4, MODE=case.gate_norm, KERNEL=case.kernel, TAPS=taps, ROWS=max(1, 2048 // taps),
        )  # fmt: skip
        self.convolution_gradient = Launch(
            kernels.convolution_gradient, (2,), (n * maps.splits, *case.strides),
            warps=8, TAPS=taps, KERNEL=case.kernel, ROWS=max(1, 8192 // taps),
        )  # fmt: skip
        self.pool_channels_backward = Launch(kernels.pool_channels_backward, (n * sums.splits,), sizes, **summed)
        self.channel_gradient = Launch(
            kernels.channel_gradient, (n, -(-c // 256)), (n * c, c, sums.splits), warps=4, NORM=case.norm, COLS=256
        )
        self.hidden_gradients = Launch(
            kernels.hidden_gradients, (-(-n // 16), -(-hidden // 16)), (c, hidden, n), warps=4, ROWS=16, COLS=16, INNER=128, PRECISION=PRECISION
        )
        self.pool_gradients = Launch(
            kernels.pool_gradients, (-(-c // 16),), (n * c, c, hidden, n), warps=4, NORM=case.norm, ROWS=32, COLS=16, INNER=16, PRECISION=PRECISION
        )
        self.mlp_gradients = Launch(
            kernels.mlp_gradients, (-(-c // 16), -(-hidden // 16)), (n * c, c, hidden, n), warps=4, ROWS=32, COLS=16, INNER=16, PRECISION=PRECISION
        )
        self.refine_backward = Launch(
            kernels.refine_backward, (n * each.splits,), (values, n * c, c, places, each.splits, each.share),
            warps=each.warps, NORM=case.norm, ROWS=each.rows, COLS=power_of_two(c), STAGES=1,
        )  # fmt: skip

    @property
    def compiled(self) -> bool:
        """Whether all its launches are; the last one is compiled last."""
        return self.refine_backward.compiled


@lru_cache(maxsize=256)
def forward_plan(case: Case) -> ForwardPlan:
    """The launches of `case`, made at its first call."""
    return ForwardPlan(case)


@lru_cache(maxsize=256)
def backward_plan(case: Case) -> BackwardPlan:
    """The launches of `case`, made at its first call."""
    return BackwardPlan(case)
