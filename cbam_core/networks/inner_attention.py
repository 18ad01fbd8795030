"""Channel attention that a backbone has of its own, as EfficientNet, RegNetY and SENet do."""

from torch import nn

INNER = frozenset(
    (
        *("SEModule", "SqueezeExcite", "SqueezeExciteCl", "EffectiveSEModule", "BlockESE", "EcaModule", "CbamModule"),
        *("LightCbamModule", "GatherExcite", "GlobalContext", "SelectiveKernel", "SplitAttn"),
    )
)
"""timm's classes of it."""


def inner_attention(network: nn.Module) -> int:
    """How many modules of timm's channel attention `network` has: with any, attention `none` is no plain network."""
    ours = "cbam_core."
    return sum(
        type(module).__name__ in INNER and not type(module).__module__.startswith(ours) for module in network.modules()
    )
