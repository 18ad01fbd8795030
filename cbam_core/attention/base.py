"""What every attention module is: a feature map in, the same feature map reweighted out."""

from abc import abstractmethod

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """A module that reweights a feature map and keeps its shape.

    Networks attach it and leave its weights alone: each module starts itself as its paper says, and the He rule of
    the backbone never touches it (it would saturate a third of CBAM's channel gates at the start).
    What comes out has the type of what went in, under autocast too: else every layer behind would keep fp32 maps.
    """

    @abstractmethod
    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """What the module does to `x` (N C H W), by name; each broadcasts against `x`.

        `channel`, `spatial` and `gate` are factors of `x`; `added` is added to it; `context` says how much each place
        counts in a pooled context (1 is an average place), and is no factor.
        """

    def residual(self, x: Tensor, shortcut: Tensor, norm: nn.Module | None = None) -> Tensor:
        """The end of a residual block, relu(self(norm(x)) + shortcut); x and shortcut N C H W, the same out."""
        refined: Tensor = self(x if norm is None else norm(x))
        return torch.relu_(refined + shortcut)


class Gate(Attention):
    """An attention module that is one factor: x * gate(x)."""

    kind = "gate"
    """What the factor varies over: `channel` (N C 1 1), `spatial` (N 1 H W) or `gate` (N C H W)."""

    @abstractmethod
    def gate(self, x: Tensor) -> Tensor:
        """The factor for `x` (N C H W), in a shape that broadcasts against it."""

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """The factor under the name of its kind."""
        return {self.kind: self.gate(x)}

    def forward(self, x: Tensor) -> Tensor:  # N C H W -> N C H W
        """The feature map times its factor, in its own type: under autocast on CUDA, sums make gates fp32."""
        return x * self.gate(x).to(x.dtype)
