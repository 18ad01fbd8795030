"""GC: the global context block (Cao, Xu, Lin, Wei, Hu, ICCV workshops 2019, arXiv 1904.11492)."""

import torch
from torch import Tensor, nn

from cbam_core.attention.arguments import check_arguments
from cbam_core.attention.base import Attention
from cbam_core.attention.functional import hidden_channels
from cbam_core.attention.options import ContextFusion, GlobalContextOptions


class GlobalContext(Attention):
    """F + W1 relu(LN(W0 context)), context = Σ_p softmax_HW(1×1 conv of F)_p F_p (equation 5).

    `scale` multiplies with a sigmoid of the same transform instead of adding it. With `add` the last layer starts at 0
    and the block as the identity, as in the authors' code.
    Raises ValueError where an argument is none that GlobalContextOptions takes.
    """

    def __init__(self, channels: int, reduction: int = 16, *, fusion: ContextFusion = "add") -> None:
        super().__init__()
        check_arguments(GlobalContextOptions, channels, reduction=reduction, fusion=fusion)
        hidden = hidden_channels(channels, reduction)
        self.attend = nn.Conv2d(channels, 1, 1)
        last = nn.Linear(hidden, channels)
        self.transform = nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), last)
        self.fusion = fusion
        nn.init.kaiming_normal_(self.attend.weight, mode="fan_in", nonlinearity="relu")
        if fusion == "add":
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """H W times the share of each place in the context (`context`, N 1 H W), and what comes of it (N C 1 1).

        That is `added` to the map, or its factor (`channel`) with `scale`.
        """
        shares = self._shares(x)
        context = (shares * shares.shape[1]).view(-1, 1, *x.shape[2:])
        return {"context": context, "added" if self.fusion == "add" else "channel": self._transformed(x, shares)}

    def forward(self, x: Tensor) -> Tensor:  # N C H W -> N C H W
        """The feature map with its context added, or scaled by it."""
        transformed = self._transformed(x, self._shares(x)).to(x.dtype)
        return x + transformed if self.fusion == "add" else x * transformed

    def _transformed(self, x: Tensor, shares: Tensor) -> Tensor:  # N C H W, N H·W -> N C 1 1
        context = torch.einsum("ncp,np->nc", x.flatten(2), shares)
        transformed: Tensor = self.transform(context)[:, :, None, None]
        return transformed if self.fusion == "add" else torch.sigmoid(transformed)

    def _shares(self, x: Tensor) -> Tensor:  # N C H W -> N H·W, each row sums to 1
        logits: Tensor = self.attend(x)
        return logits.flatten(1).softmax(1)
