"""Attention modules: CBAM and what it is compared with. Importing this package loads no torch; using a module does."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cbam_core.attention.registry import VARIANTS, attention_from_spec, create_attention

if TYPE_CHECKING:
    from cbam_core.attention.base import Attention, Gate
    from cbam_core.attention.cbam import CBAM, ChannelAttention, SpatialAttention
    from cbam_core.attention.se import SE

_HOMES = {
    "Attention": "base",
    "Gate": "base",
    "CBAM": "cbam",
    "ChannelAttention": "cbam",
    "SpatialAttention": "cbam",
    "SE": "se",
}

__all__ = [
    "CBAM",
    "SE",
    "VARIANTS",
    "Attention",
    "ChannelAttention",
    "Gate",
    "SpatialAttention",
    "attention_from_spec",
    "create_attention",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
