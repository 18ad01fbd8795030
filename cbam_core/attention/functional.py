"""The small functions that attention modules are made of: pools, gates, widths and first weights."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbam_core.attention.maximum import max_over

GATES: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "hard_sigmoid": F.hardsigmoid}


def hidden_channels(channels: int, reduction: int) -> int:
    """Units between the two layers of a gate: channels / r rounded down, and at least one.

    Raises ValueError where either is below 1.
    """
    if channels < 1 or reduction < 1:
        raise ValueError(f"channels and reduction must be at least 1; got {channels} and {reduction}")
    return max(1, channels // reduction)


def accumulation_dtype(x: Tensor) -> torch.dtype:
    """The type to sum many values of `x` in: fp32 for the half types, else its own."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def sum_of_squares(x: Tensor) -> Tensor:  # N C H W -> N C
    """The sum of squares over H and W, in fp32 at least: in fp16 56 × 56 values of 5 overflow.

    The norm of a half map reads it as it is: a map squared in fp32 would stay in memory for the backward.
    """
    if accumulation_dtype(x) != x.dtype:
        norm: Tensor = torch.linalg.vector_norm(x, 2, dim=(2, 3), dtype=torch.float32)
        return norm.square()
    return x.square().sum((2, 3))


def average_pool(x: Tensor) -> Tensor:  # N C H W -> N C
    """The mean over H and W."""
    return x.mean((2, 3))


def max_pool(x: Tensor) -> Tensor:  # N C H W -> N C
    """The maximum over H and W."""
    return max_over(x.flatten(2), 2)


def lp_pool(x: Tensor) -> Tensor:  # N C H W -> N C
    """The L2 norm over H and W (the authors' `lp`: a power-sum, not a mean, so it grows with the map)."""
    norm: Tensor = torch.linalg.vector_norm(x, 2, dim=(2, 3))
    return norm


def lse_pool(x: Tensor) -> Tensor:  # N C H W -> N C
    """log sum exp over H and W: a soft maximum."""
    return torch.logsumexp(x, dim=(2, 3))


CHANNEL_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "avg": average_pool,
    "max": max_pool,
    "lp": lp_pool,
    "lse": lse_pool,
}


def init_like_timm(module: nn.Module) -> None:
    """He normal, fan-out, for every convolution and linear layer of a gate; biases 0: what timm's networks do to it."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
