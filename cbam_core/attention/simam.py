"""SimAM: a simple, parameter-free attention module (Yang, Zhang, Li, Xie, ICML 2021)."""

import torch
from torch import Tensor

from cbam_core.attention.base import Gate


class SimAM(Gate):
    """sigmoid( 1 / e* ), e* the least energy that sets a place apart from its channel (equation 5); no weights.

    1 / e* = (F - mean)² / (4 (variance + lambda)) + 1/2, mean and variance over H W, the variance with H W - 1 below.
    Raises ValueError where lambda is not positive: a constant map would divide by it alone.
    """

    def __init__(self, channels: int, regularisation: float = 1e-4) -> None:
        super().__init__()
        if channels < 1 or regularisation <= 0:
            raise ValueError(f"channels and regularisation must be positive; got {channels} and {regularisation}")
        self.regularisation = regularisation

    def gate(self, x: Tensor) -> Tensor:  # N C H W -> N C H W
        """One number per channel and place, between 0.62 (like its surroundings) and 1 (unlike them)."""
        squared = (x - x.mean((2, 3), keepdim=True)).square()
        others = max(1, x.shape[2] * x.shape[3] - 1)
        variance = squared.sum((2, 3), keepdim=True) / others
        return torch.sigmoid(squared / (4 * (variance + self.regularisation)) + 0.5)
