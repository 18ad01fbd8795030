"""Tensors on their way to the training device."""

import torch
from torch import Tensor


def send(values: Tensor, device: torch.device) -> Tensor:
    """`values`, which are on the CPU, on `device`.

    A GPU copies pinned memory by itself, so nobody waits for what it is doing.
    """
    if device.type == "cuda":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)
