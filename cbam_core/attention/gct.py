"""GCT: Gated Channel Transformation (Yang, Zhu, Wu, Yang, CVPR 2020, arXiv 1909.11519)."""

import torch
from torch import Tensor, nn

from cbam_core.attention.arguments import check_arguments
from cbam_core.attention.base import Gate
from cbam_core.attention.functional import accumulation_dtype, sum_of_squares
from cbam_core.attention.options import GCTNorm, GCTOptions


class GCT(Gate):
    """1 + tanh( gamma s / norm_C(s) + beta ), s = alpha norm_HW(F): three numbers per channel (equations 1 to 4).

    The norms are L2 or L1 and those over C are means. gamma and beta start at 0, so the module starts as the identity.
    Raises ValueError where an argument is none that GCTOptions takes.
    """

    kind = "channel"

    def __init__(self, channels: int, *, norm: GCTNorm = "l2", epsilon: float = 1e-5) -> None:
        super().__init__()
        check_arguments(GCTOptions, channels, norm=norm, epsilon=epsilon)
        self.norm = norm
        self.epsilon = epsilon
        self.alpha = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def gate(self, x: Tensor) -> Tensor:  # N C H W -> N C 1 1
        """One number per channel, between 0 and 2."""
        if self.norm == "l2":
            embedding = self.alpha * (sum_of_squares(x) + self.epsilon).sqrt()
            scale = (embedding.square().mean(1, keepdim=True) + self.epsilon).sqrt()
        else:
            embedding = self.alpha * x.abs().sum((2, 3), dtype=accumulation_dtype(x))
            scale = embedding.abs().mean(1, keepdim=True) + self.epsilon
        return (1 + torch.tanh(self.gamma * embedding / scale + self.beta))[:, :, None, None]
