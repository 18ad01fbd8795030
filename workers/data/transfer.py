"""Tensors on their way to the training device."""

from functools import lru_cache

import torch
from torch import Tensor


def send(values: Tensor, device: torch.device) -> Tensor:
    """`values`, which are on the CPU, on `device`.

    A GPU copies pinned memory by itself, so nobody waits for what it is doing.
    """
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@lru_cache(maxsize=64)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """A float tensor of `values` on `device`, copied there once in the life of the process.

    `torch.tensor(..., device=...)` copies from memory that is not pinned, and waits for all that the GPU has to do.
    """
    return torch.tensor(values, device=device)
