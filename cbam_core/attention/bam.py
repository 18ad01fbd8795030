"""BAM: Bottleneck Attention Module (Park, Woo, Lee, Kweon, BMVC 2018, arXiv 1807.06514)."""

import torch
from torch import Tensor, nn

from cbam_core.attention.arguments import check_arguments
from cbam_core.attention.base import Gate
from cbam_core.attention.functional import hidden_channels, init_like_timm
from cbam_core.attention.options import BAMFusion, BAMOptions


class BAM(Gate):
    """1 + sigmoid( Mc(F) ∘ Ms(F) ), to stand between the stages of a network.

    Mc = W1 relu(BN(W0 avgpool_HW(F)))          N C 1 1   (equation 3)
    Ms = 1×1 down, two dilated 3×3, 1×1 to one  N 1 H W   (equation 4), BN and ReLU after all but the last
    ∘ is the product in the authors' code (`product`, the default) and the sum in the paper (`sum`, equation 2).
    Starts as the authors' networks do: He fan-out for the convolutions, Linear default for the MLP, biases 0.
    Raises ValueError where an argument is none that BAMOptions takes.
    """

    def __init__(self, channels: int, reduction: int = 16, dilation: int = 4, *, fusion: BAMFusion = "product") -> None:
        super().__init__()
        check_arguments(BAMOptions, channels, reduction=reduction, dilation=dilation, fusion=fusion)
        hidden = hidden_channels(channels, reduction)
        down, up = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.channel = nn.Sequential(down, nn.BatchNorm1d(hidden), nn.ReLU(), up)
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(hidden), nn.ReLU(),
            nn.Conv2d(hidden, 1, 1),
        )  # fmt: skip
        self.fusion = fusion
        init_like_timm(self.spatial)
        nn.init.zeros_(down.bias)
        nn.init.zeros_(up.bias)

    def gate(self, x: Tensor) -> Tensor:  # N C H W -> N C H W
        """One number per channel and place, between 1 and 2."""
        channel: Tensor = self.channel(x.mean((2, 3)))[:, :, None, None]
        spatial: Tensor = self.spatial(x)
        return 1 + torch.sigmoid(channel * spatial if self.fusion == "product" else channel + spatial)
