"""Triplet attention (Misra, Nalamada, Arasanipalai, Hou, WACV 2021, arXiv 2010.03045)."""

from torch import Tensor

from cbam_core.attention.arguments import check_arguments
from cbam_core.attention.base import Gate
from cbam_core.attention.cbam import SpatialAttention
from cbam_core.attention.options import TripletOptions


class Triplet(Gate):
    """The mean of three gates, each over two of the axes C, H, W with the third one pooled (equations 5 and 6).

    Each is CBAM's spatial gate (max and average pool, k×k convolution, BatchNorm, sigmoid) on a rotated map; the
    BatchNorm scale starts at 1. `spatial=False` leaves the gate over H W out (the paper's ablation).
    Raises ValueError where an argument is none that TripletOptions takes.
    """

    def __init__(self, channels: int, kernel_size: int = 7, *, spatial: bool = True) -> None:
        super().__init__()
        check_arguments(TripletOptions, channels, kernel_size=kernel_size, spatial=spatial)
        self.channel_width = SpatialAttention(kernel_size, init="timm")
        self.channel_height = SpatialAttention(kernel_size, init="timm")
        self.height_width = SpatialAttention(kernel_size, init="timm") if spatial else None

    def gate(self, x: Tensor) -> Tensor:  # N C H W -> N C H W
        """One number per channel and place, between 0 and 1."""
        gates = [
            self.channel_width.gate(x.transpose(1, 2)).transpose(1, 2),  # pooled over H: N C 1 W
            self.channel_height.gate(x.transpose(1, 3)).transpose(1, 3),  # pooled over W: N C H 1
        ]
        if self.height_width is not None:
            gates.append(self.height_width.gate(x))  # pooled over C: N 1 H W
        total = gates[0] + gates[1]
        return (total + gates[2]) / 3 if len(gates) == 3 else total / 2
