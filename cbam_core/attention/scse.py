"""scSE: concurrent spatial and channel squeeze and excitation (Roy et al., MICCAI 2018, arXiv 1803.02579)."""

import torch
from torch import Tensor, nn

from cbam_core.attention.arguments import check_arguments
from cbam_core.attention.base import Attention
from cbam_core.attention.options import SCSEFusion, SCSEOptions
from cbam_core.attention.se import SE


class SCSE(Attention):
    """F c joined with F s, where c is SE's gate (equation 4) and s = sigmoid( 1×1 conv of F to one map ) (equation 5).

    `sum` adds the two (the paper's scSE); `max` takes the larger (the journal version, arXiv 1808.08127).
    The paper finds r = 2 best. Raises ValueError where an argument is none that SCSEOptions takes.
    """

    def __init__(self, channels: int, reduction: int = 2, *, fusion: SCSEFusion = "sum") -> None:
        super().__init__()
        check_arguments(SCSEOptions, channels, reduction=reduction, fusion=fusion)
        self.channel = SE(channels, reduction)
        self.spatial = nn.Conv2d(channels, 1, 1)
        self.fusion = fusion

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """c (`channel`, N C 1 1) and s (`spatial`, N 1 H W)."""
        return {"channel": self.channel.gate(x), "spatial": torch.sigmoid(self.spatial(x))}

    def forward(self, x: Tensor) -> Tensor:  # N C H W -> N C H W
        """Both recalibrations of the feature map, joined."""
        maps = {name: gate.to(x.dtype) for name, gate in self.maps(x).items()}
        if self.fusion == "sum":
            return x * (maps["channel"] + maps["spatial"])
        return torch.maximum(x * maps["channel"], x * maps["spatial"])
