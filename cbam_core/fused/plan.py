"""All launches of the fused residual tail for one shape, made once and kept."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from cbam_core.fused import backward_kernels, forward_kernels
from cbam_core.fused.launch import Launch, Layout, Tiling, power_of_two

MAP_ROWS = 256  # places of the spatial gate's map that one program convolves
NONE, BATCH, RUNNING = 0, 1, 2
STAGES = 3  # tiles in flight: the next ones are fetched while one is summed
UNROLL = 8  # shares of an image that are read at once


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


def _tiling_of_sums(n: int, places: int, c: int) -> Tiling:
    """For the passes that sum over places and channels: few warps each, so that sums over the channels cross few."""
    return Tiling.of(n, places, c, warps=max(1, min(8, power_of_two(c) // 512)))


class ForwardPlan:
    """Eight launches, and the memory they need."""

    def __init__(self, case: Case) -> None:
        n, c, height, width = case.shape
        places, sums = height * width, _tiling_of_sums(n, height * width, c)
        self._programs, self._map_splits = n * sums.splits, -(-places // MAP_ROWS)
        self._sizes = (c, places, sums.splits, sums.share)
        self.kept = kept_layout(n, c, places, case.hidden)
        parts = dict.fromkeys(("means", "squares", "tops", "places"), self._programs * c)
        self.scratch = Layout(parts | {"moments": 2 * n * self._map_splits})
        self._plan_pools(case, sums)
        self._plan_mlp(case)
        self._plan_spatial_gate(case)
        each = Tiling.of(n, places, c, warps=8, least=4)
        self.refine = Launch(
            forward_kernels.refine, (n * each.splits,), (c, places, each.splits, each.share),
            warps=each.warps, NORM=case.norm, ROWS=each.rows, COLS=power_of_two(c), STAGES=STAGES,
        )  # fmt: skip

    def _plan_pools(self, case: Case, sums: Tiling) -> None:
        n, c, height, width = case.shape
        values, cols = float(n * height * width), min(256, power_of_two(c))
        self.pool_places = Launch(
            forward_kernels.pool_places, (self._programs, -(-c // cols)), self._sizes,
            warps=1, NORM=case.norm, ROWS=min(1024 // cols, power_of_two(sums.share)), COLS=cols,
            STAGES=STAGES,
        )  # fmt: skip
        self.pool_statistics = Launch(
            forward_kernels.pool_statistics, (-(-c // 8),),
            (case.eps[0], case.momentum[0], values, n * c, c, height * width, n, sums.splits, sums.share),
            warps=16, NORM=case.norm, TRACK=int(case.track[0]), ROWS=1024, COLS=8, IMAGES=min(128, power_of_two(n)),
            UNROLL=UNROLL,
        )  # fmt: skip
        self.pool_channels = Launch(
            forward_kernels.pool_channels, (self._programs,), self._sizes,
            warps=sums.warps, NORM=case.norm, ROWS=sums.rows, COLS=power_of_two(c), STAGES=STAGES,
        )  # fmt: skip

    def _plan_mlp(self, case: Case) -> None:
        n, c = case.shape[:2]
        self.hidden_units = Launch(
            forward_kernels.hidden_units, (-(-2 * n // 16), -(-case.hidden // 16)), (n * c, c, case.hidden, 2 * n),
            warps=4, BIAS=int(case.bias), ROWS=16, COLS=16, INNER=128, PRECISION="tf32x3",
        )  # fmt: skip
        self.gate_logits = Launch(
            forward_kernels.gate_logits, (-(-n // 16), -(-c // 32)), (c, case.hidden, n),
            warps=2, BIAS=int(case.bias), ROWS=16, COLS=32, INNER=32, PRECISION="tf32x3",
        )  # fmt: skip

    def _plan_spatial_gate(self, case: Case) -> None:
        n, _, height, width = case.shape
        self.convolve_maps = Launch(
            forward_kernels.convolve_maps, (n, self._map_splits), (height, width, *case.strides),
            warps=4, KERNEL=case.kernel, ROWS=MAP_ROWS,
        )  # fmt: skip
        self.map_statistics = Launch(
            forward_kernels.map_statistics, (1,),
            (case.eps[1], case.momentum[1], float(n * height * width), height * width, n, self._map_splits, MAP_ROWS),
            warps=8, MODE=case.gate_norm, TRACK=int(case.track[1]), ROWS=1024,
        )  # fmt: skip

    @property
    def compiled(self) -> bool:
        """Whether all its launches are; the last one is compiled last."""
        return self.refine.compiled


class BackwardPlan:
    """Ten launches, and the memory they need."""

    def __init__(self, case: Case) -> None:
        n, c, height, width = case.shape
        places, sums = height * width, _tiling_of_sums(n, height * width, c)
        maps = Tiling.of(n, places, power_of_two(case.kernel**2), warps=1, numbers=32, least=12, most=4)
        self.kept = kept_layout(n, c, places, case.hidden)
        self.scratch = self._layout(case, sums, maps)
        self._plan_spatial_gate(case, maps, programs=n * sums.splits)
        self._plan_mlp(case, splits=sums.splits)
        grid, sizes = (n * sums.splits,), (c, places, sums.splits, sums.share)
        wide = {"NORM": case.norm, "ROWS": sums.rows, "COLS": power_of_two(c), "STAGES": STAGES}
        self.spatial_gradient = Launch(backward_kernels.spatial_gradient, grid, sizes, warps=sums.warps, **wide)
        self.pool_channels_backward = Launch(
            backward_kernels.pool_channels_backward, grid, sizes, warps=sums.warps, **wide | {"ROWS": 2 * sums.rows}
        )
        each = Tiling.of(n, places, c, warps=4, least=12)
        self.refine_backward = Launch(
            backward_kernels.refine_backward, (n * each.splits,),
            (float(n * places), n * c, c, places, each.splits, each.share),
            warps=each.warps, NORM=case.norm, ROWS=each.rows, COLS=power_of_two(c), STAGES=STAGES,
        )  # fmt: skip

    @staticmethod
    def _layout(case: Case, sums: Tiling, maps: Tiling) -> Layout:
        n, c, height, width = case.shape
        places = height * width
        return Layout(
            {
                "gate_gradient": n * places,
                "spatial_sums": 2 * n * sums.splits,
                "spatial_part": 2 * n * sums.splits * c,
                "pooled_part": 2 * n * sums.splits * c,
                "map_gradients": 2 * n * places,
                "parts": 2 * n * maps.splits * power_of_two(case.kernel**2),
                "logit_gradients": n * c,
                "direct": 2 * n * c,
                "hidden_gradients": 2 * n * case.hidden,
                "pool_gradients": 2 * n * c,
                "unused": max(c, case.hidden),
            }
        )

    def _plan_spatial_gate(self, case: Case, maps: Tiling, *, programs: int) -> None:
        n, _, height, width = case.shape
        taps, cols = power_of_two(case.kernel**2), min(16, power_of_two(case.kernel**2))
        self.map_norm_gradient = Launch(
            backward_kernels.map_norm_gradient, (n,), (float(n * height * width), programs, height * width),
            warps=4, MODE=case.gate_norm, ROWS=1024,
        )  # fmt: skip
        self.convolve_maps_backward = Launch(
            backward_kernels.convolve_maps_backward, (n * maps.splits,),
            (height, width, maps.splits, maps.share, *case.strides),
            warps=maps.warps, KERNEL=case.kernel, TAPS=taps, ROWS=maps.rows,
        )  # fmt: skip
        self.convolution_gradient = Launch(
            backward_kernels.convolution_gradient, (2, taps // cols), (n * maps.splits, *case.strides),
            warps=8, TAPS=taps, KERNEL=case.kernel, ROWS=512, COLS=cols,
        )  # fmt: skip

    def _plan_mlp(self, case: Case, *, splits: int) -> None:
        (n, c), hidden = case.shape[:2], case.hidden
        block, rows = (32, 32) if hidden >= 32 else (16, 64)
        self.channel_gradient = Launch(
            backward_kernels.channel_gradient, (n, -(-c // 256)), (n * c, c, splits),
            warps=4, NORM=case.norm, COLS=256, UNROLL=UNROLL,
        )  # fmt: skip
        self.hidden_gradients = Launch(
            backward_kernels.hidden_gradients, (-(-n // 16), -(-hidden // 16)), (c, hidden, n),
            warps=4, ROWS=16, COLS=16, INNER=128, PRECISION="ieee",
        )  # fmt: skip
        self.pool_gradients = Launch(
            backward_kernels.pool_gradients, (-(-c // 16),), (n * c, c, hidden, n),
            warps=4, NORM=case.norm, ROWS=64, COLS=16, INNER=block, PRECISION="ieee",
        )  # fmt: skip
        self.mlp_gradients = Launch(
            backward_kernels.mlp_gradients, (-(-c // block), -(-hidden // block)), (n * c, c, hidden, n),
            warps=2, ROWS=rows, COLS=block, INNER=block, PRECISION="ieee",
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
