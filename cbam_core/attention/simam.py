"""SimAM: a simple, parameter-free attention module (Yang, Zhang, Li, Xie, ICML 2021)."""

import torch
from torch import Tensor

from cbam_core.attention.arguments import check_arguments
from cbam_core.attention.base import Gate
from cbam_core.attention.functional import accumulation_dtype, sum_of_squares
from cbam_core.attention.options import SimAMOptions


class SimAM(Gate):
    """sigmoid( 1 / e* ), e* the least energy that sets a place apart from its channel (equation 5); no weights.

    1 / e* = (F - mean)² / (4 (variance + lambda)) + 1/2, mean and variance over H W, the variance with H W - 1 below.
    Raises ValueError where lambda is not positive: a constant map would divide by it alone.
    """

    def __init__(self, channels: int, regularisation: float = 1e-4) -> None:
        super().__init__()
        check_arguments(SimAMOptions, channels, regularisation=regularisation)
        self.regularisation = regularisation

    def gate(self, x: Tensor) -> Tensor:  # N C H W -> N C H W
        """One number per channel and place, between 0.62 (like its surroundings) and 1 (unlike them)."""
        others = max(1, x.shape[2] * x.shape[3] - 1)
        if accumulation_dtype(x) != x.dtype:
            return self._half_gate(x, others)
        squared = (x - x.mean((2, 3), keepdim=True)).square()
        variance = squared.sum((2, 3), keepdim=True) / others
        return torch.sigmoid(squared / (4 * (variance + self.regularisation)) + 0.5)

    def _half_gate(self, x: Tensor, others: int) -> Tensor:
        """The same, squared after the division and not before: no square overflows, and no map is kept in fp32."""
        mean = x.mean((2, 3), keepdim=True, dtype=torch.float32)
        quarter = ((x - mean) / 4).to(x.dtype)  # in range whatever x is, as half of the deviation is
        variance = 16 * sum_of_squares(quarter) / others
        deviation = (variance + self.regularisation).sqrt() / 2
        deviation = deviation.to(x.dtype).clamp(min=torch.finfo(x.dtype).tiny)
        ratio = quarter / deviation[:, :, None, None]
        return torch.sigmoid(ratio * ratio + 0.5)
