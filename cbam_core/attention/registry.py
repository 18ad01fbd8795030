"""Attention modules by name. Torch is loaded when the first one is made, not before."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, get_args

from cbam_core.attention.options import AttentionSpec, Options
from cbam_core.errors import UnknownAttention

if TYPE_CHECKING:
    from torch import nn

_OPTIONS: tuple[type[Options], ...] = get_args(get_args(AttentionSpec)[0])
VARIANTS: dict[str, type[Options]] = {str(options.model_fields["type"].default): options for options in _OPTIONS}
"""The options of each kind of attention that a spec may name."""


def create_attention(name: str, channels: int, **options: Any) -> nn.Module:
    """The attention module `name` for feature maps of so many channels; `none` gives nn.Identity.

    Raises UnknownAttention, or pydantic's ValidationError (a ValueError) where an option is unknown or out of range.
    """
    if name not in VARIANTS:
        raise UnknownAttention(f"unknown attention {name!r}; known are {', '.join(VARIANTS)}")
    return attention_from_spec(VARIANTS[name](**options), channels)


def attention_from_spec(spec: Options, channels: int) -> nn.Module:
    """The attention module that `spec` (one of AttentionSpec) describes, for feature maps of so many channels."""
    fields = dict(spec)
    del fields["type"]
    module, _, name = spec.factory.partition(":")
    made: nn.Module = getattr(import_module(module), name)(channels, **fields)
    return made
