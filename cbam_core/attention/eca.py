"""ECA: Efficient Channel Attention (Wang et al., CVPR 2020, arXiv 1910.03151)."""

import math

import torch
from torch import Tensor, nn

from cbam_core.attention.arguments import check_arguments
from cbam_core.attention.base import Gate
from cbam_core.attention.options import ECAOptions


class ECA(Gate):
    """sigmoid( conv1d_k( avgpool_HW(F) ) ): each channel looks at its k neighbours, without a bottleneck (equation 9).

    k follows the width where it is not given: the odd number next to (log2(C) + 1) / 2 (equation 12), at least 3.
    Raises ValueError where an argument is none that ECAOptions takes.
    """

    kind = "channel"

    def __init__(self, channels: int, kernel_size: int | None = None) -> None:
        super().__init__()
        check_arguments(ECAOptions, channels, kernel_size=kernel_size)
        kernel_size = adaptive_kernel(channels) if kernel_size is None else kernel_size
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)

    def gate(self, x: Tensor) -> Tensor:  # N C H W -> N C 1 1
        """One number per channel, between 0 and 1."""
        logits: Tensor = self.conv(x.mean((2, 3))[:, None])  # N 1 C: the channels are the signal
        return torch.sigmoid(logits)[:, 0, :, None, None]


def adaptive_kernel(channels: int) -> int:
    """Equation 12 with gamma 2 and b 1. Raises ValueError where channels is below 1."""
    if channels < 1:
        raise ValueError(f"channels must be at least 1; got {channels}")
    size = int((math.log2(channels) + 1) / 2)
    return max(3, size if size % 2 else size + 1)
