"""Coordinate attention (Hou, Zhou, Feng, CVPR 2021, arXiv 2103.02907)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbam_core.attention.arguments import check_arguments
from cbam_core.attention.base import Gate
from cbam_core.attention.functional import hidden_channels
from cbam_core.attention.options import CoordinateOptions


class Coordinate(Gate):
    """g_h g_w: one gate along the height and one along the width, from pools along the other axis (equations 4 to 8).

    f = h_swish(BN(1×1 conv of [avgpool_W F ; avgpool_H F])), g_h = sigmoid(1×1 conv f_h), g_w = sigmoid(1×1 conv f_w).
    The middle has max(8, C // r) channels, as in the authors' code.
    Raises ValueError where an argument is none that CoordinateOptions takes.
    """

    def __init__(self, channels: int, reduction: int = 32) -> None:
        super().__init__()
        check_arguments(CoordinateOptions, channels, reduction=reduction)
        hidden = max(8, hidden_channels(channels, reduction))
        self.conv = nn.Conv2d(channels, hidden, 1)
        self.norm = nn.BatchNorm2d(hidden)
        self.height = nn.Conv2d(hidden, channels, 1)
        self.width = nn.Conv2d(hidden, channels, 1)

    def gate(self, x: Tensor) -> Tensor:  # N C H W -> N C H W
        """One number per channel and place, between 0 and 1."""
        rows = x.mean(3)  # N C H
        columns = x.mean(2)  # N C W
        lines = torch.cat([rows, columns], 2)[..., None]  # N C H+W 1
        lines = F.hardswish(self.norm(self.conv(lines)))
        along_height = lines[:, :, : rows.shape[2]]  # N hidden H 1
        along_width = lines[:, :, rows.shape[2] :].transpose(2, 3)  # N hidden 1 W
        return torch.sigmoid(self.height(along_height)) * torch.sigmoid(self.width(along_width))
