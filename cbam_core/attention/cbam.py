"""CBAM: Convolutional Block Attention Module (Woo, Park, Lee, Kweon, ECCV 2018, arXiv 1807.06521)."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from cbam_core.attention.arguments import check_arguments, check_choice, check_choices
from cbam_core.attention.base import Attention, Gate
from cbam_core.attention.functional import CHANNEL_POOLS, GATES, hidden_channels, init_like_timm
from cbam_core.attention.maximum import max_over
from cbam_core.attention.options import CBAMOptions, ChannelPool, GateName, GateNorm, Init, Order, SpatialPool

SPATIAL_MOMENTUM = 0.01


class ChannelAttention(Gate):
    """Which channels matter (equation 2): Mc(F) = sigmoid( Σ_pool W1 relu(W0 pool_HW(F)) ).

    W0 (C/r × C) and W1 (C × C/r) are shared by the pools and carry a bias as in the authors' code. The weights start
    as a linear layer does in PyTorch and the biases at 0; `init="timm"` starts them by He's fan-out rule, as timm's
    networks do. Raises ValueError where channels or reduction is below 1, or a choice is none that CBAMOptions has.
    """

    kind = "channel"

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        *,
        pools: Sequence[ChannelPool] = ("avg", "max"),
        mlp_bias: bool = True,
        gate: GateName = "sigmoid",
        init: Init = "official",
    ) -> None:
        super().__init__()
        check_choices("pools", pools, CHANNEL_POOLS)
        check_choice("gate", gate, GATES)
        check_choice("init", init, get_args(Init))
        hidden = hidden_channels(channels, reduction)
        self.fc1 = nn.Linear(channels, hidden, bias=mlp_bias)
        self.fc2 = nn.Linear(hidden, channels, bias=mlp_bias)
        self.pools = [CHANNEL_POOLS[name] for name in pools]
        self.activation = GATES[gate]
        if init == "timm":
            init_like_timm(self)
        elif mlp_bias:
            nn.init.zeros_(self.fc1.bias)
            nn.init.zeros_(self.fc2.bias)

    @property
    def pool_names(self) -> tuple[str, ...]:
        """The names of its pools, sorted; `other` for a function that is none of CHANNEL_POOLS."""
        names = {pool: name for name, pool in CHANNEL_POOLS.items()}
        return tuple(sorted(names.get(pool, "other") for pool in self.pools))

    def gate(self, x: Tensor) -> Tensor:  # N C H W -> N C 1 1
        """Mc, between 0 and 1."""
        pooled = torch.stack([pool(x) for pool in self.pools])  # pools N C: one matrix product serves them all
        logits = self.fc2(torch.relu(self.fc1(pooled))).sum(0)
        return self.activation(logits)[:, :, None, None]


class SpatialAttention(Gate):
    """Which places matter (equation 3): Ms(F) = sigmoid( norm( f_k×k( [max_C F ; avg_C F] ) ) ).

    `pools=("conv",)` puts a learned 1×1 convolution in the place of the two pools (table 2) and then needs `channels`.
    The norm is a BatchNorm over the one map with momentum 0.01. Its scale starts at 0, so that the gate starts at
    exactly one half everywhere; `init="timm"` starts it at 1.
    Raises ValueError where the kernel is even, a choice is none that CBAMOptions has, or `conv` lacks its channels or
    has company.
    """

    kind = "spatial"

    def __init__(
        self,
        kernel_size: int = 7,
        *,
        pools: Sequence[SpatialPool] = ("avg", "max"),
        channels: int | None = None,
        norm: GateNorm = "batch",
        gate: GateName = "sigmoid",
        init: Init = "official",
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that the map keeps its size; got {kernel_size}")
        check_choices("pools", pools, get_args(SpatialPool))
        if "conv" in pools and (len(pools) > 1 or channels is None):
            raise ValueError("spatial pools are avg, max or both; or conv alone, together with `channels`")
        check_choice("norm", norm, get_args(GateNorm))
        check_choice("gate", gate, GATES)
        check_choice("init", init, get_args(Init))
        self.pools = tuple(name for name in ("max", "avg") if name in pools)
        self.squeeze = nn.Conv2d(channels, 1, 1, bias=False) if channels is not None and "conv" in pools else None
        self.conv = nn.Conv2d(len(pools), 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = nn.BatchNorm2d(1, momentum=SPATIAL_MOMENTUM) if norm == "batch" else None
        self.activation = GATES[gate]
        init_like_timm(self)
        if self.norm is not None and init == "official":
            nn.init.zeros_(self.norm.weight)

    def gate(self, x: Tensor) -> Tensor:  # N C H W -> N 1 H W
        """Ms, between 0 and 1."""
        maps = self._descriptors(x)
        if maps.requires_grad and maps.device.type == "cpu" and maps.dtype == torch.float32:
            # oneDNN's gradient of two maps takes a third of the time in this layout; its forward alone takes longer
            maps = maps.contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.conv(maps)
        if self.norm is not None:
            logits = self.norm(logits)
        return self.activation(logits)

    def _descriptors(self, x: Tensor) -> Tensor:  # N C H W -> N (1 or 2) H W
        if self.squeeze is not None:
            squeezed: Tensor = self.squeeze(x)
            return squeezed
        maps = [max_over(x, 1) if name == "max" else x.mean(1) for name in self.pools]
        # cat, not stack: with symbolic H and W inductor cannot order the strides of a stack
        return torch.cat([pooled.unsqueeze(1) for pooled in maps], 1)


class CBAM(Attention):
    """Channel attention, then spatial attention (equation 1): F' = Mc(F) F, F'' = Ms(F') F'.

    channels      C of the feature map
    reduction     r: the shared MLP has max(1, C // r) hidden units
    kernel_size   side of the spatial convolution, odd
    order         which half stands first; `parallel`: F'' = Mc(F) Ms(F) F; `channel` and `spatial`: that half alone
    pools         how channel attention pools H W: any of avg, max, lp, lse
    spatial_pools how spatial attention pools C: avg, max or both; or conv, a learned 1×1 convolution
    mlp_bias      whether the MLP has biases; the paper's parameter counts need them
    spatial_norm  what stands between the spatial convolution and its gate: batch or none
    gate          sigmoid, or hard_sigmoid (MobileNetV3's straight-line one)
    init          official: as the authors' networks start; timm: as timm's networks start

    Raises ValueError where an argument, or their combination, is none that CBAMOptions takes.
    """

    fused: Literal["auto", "on", "off"] = "auto"
    """Whether `residual` runs as one operator on a GPU: where that applies, always (ValueError if not), or never."""

    def __init__(  # noqa: PLR0913 - one keyword per choice that the paper and its followers compare
        self,
        channels: int,
        reduction: int = 16,
        kernel_size: int = 7,
        *,
        order: Order = "channel_spatial",
        pools: Sequence[ChannelPool] = ("avg", "max"),
        spatial_pools: Sequence[SpatialPool] = ("avg", "max"),
        mlp_bias: bool = True,
        spatial_norm: GateNorm = "batch",
        gate: GateName = "sigmoid",
        init: Init = "official",
    ) -> None:
        super().__init__()
        check_arguments(
            CBAMOptions, channels, reduction=reduction, kernel_size=kernel_size, order=order, pools=pools,
            spatial_pools=spatial_pools, mlp_bias=mlp_bias, spatial_norm=spatial_norm, gate=gate, init=init,
        )  # fmt: skip
        self.order = order
        if order != "spatial":
            self.channel = ChannelAttention(channels, reduction, pools=pools, mlp_bias=mlp_bias, gate=gate, init=init)
        if order != "channel":
            self.spatial = SpatialAttention(
                kernel_size, pools=spatial_pools, channels=channels, norm=spatial_norm, gate=gate, init=init
            )

    @property
    def unmodified(self) -> bool:
        """Whether it and its halves are of these very classes: a subclass, or a part put in, may compute otherwise."""
        halves = type(getattr(self, "channel", None)), type(getattr(self, "spatial", None))
        return type(self) is CBAM and halves == (ChannelAttention, SpatialAttention)

    def maps(self, x: Tensor) -> dict[str, Tensor]:
        """Mc (`channel`, N C 1 1) and Ms (`spatial`, N 1 H W) in the order they are applied, each as it meets `x`."""
        maps: dict[str, Tensor] = {}
        for name in ORDERS[self.order]:
            half: Gate = getattr(self, name)
            maps[name] = half.gate(x)
            if self.order != "parallel":
                x = x * maps[name].to(x.dtype)
        return maps

    def forward(self, x: Tensor) -> Tensor:  # N C H W -> N C H W
        """The feature map, refined by both halves."""
        if self.order == "parallel":
            return x * self.channel.gate(x).to(x.dtype) * self.spatial.gate(x).to(x.dtype)
        for name in ORDERS[self.order]:
            x = getattr(self, name)(x)
        return x

    def residual(self, x: Tensor, shortcut: Tensor, norm: nn.Module | None = None) -> Tensor:
        """The end of a residual block, relu(self(norm(x)) + shortcut), fused where `fused` says and allows."""
        if self.fused == "off" or (self.fused == "auto" and not x.is_cuda):
            return super().residual(x, shortcut, norm)
        from cbam_core import fused  # knows Triton, which only CUDA needs

        reason = fused.refusal(self, norm, x, shortcut)
        if reason is None:
            return fused.residual(self, x, shortcut, norm)
        if self.fused == "on":
            raise ValueError(f"this CBAM cannot run fused: {reason}")
        return super().residual(x, shortcut, norm)


ORDERS: dict[Order, tuple[str, ...]] = {
    "channel_spatial": ("channel", "spatial"),
    "spatial_channel": ("spatial", "channel"),
    "parallel": ("channel", "spatial"),
    "channel": ("channel",),
    "spatial": ("spatial",),
}
