"""Attention modules by name. Torch is loaded when the first one is made, not before."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cbam_core.attention import options as of
from cbam_core.errors import UnknownAttention

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Variant:
    """One kind of attention: what may be said about it, and the class `module:name` that is made from it.

    The class takes the number of channels and then every field of the options (except `type`) as a keyword.
    """

    options: type[of.Options]
    factory: str


VARIANTS: dict[str, Variant] = {
    "none": Variant(of.NoAttention, "torch.nn:Identity"),
    "cbam": Variant(of.CBAMOptions, "cbam_core.attention.cbam:CBAM"),
    "se": Variant(of.SEOptions, "cbam_core.attention.se:SE"),
    "eca": Variant(of.ECAOptions, "cbam_core.attention.eca:ECA"),
    "bam": Variant(of.BAMOptions, "cbam_core.attention.bam:BAM"),
    "scse": Variant(of.SCSEOptions, "cbam_core.attention.scse:SCSE"),
    "simam": Variant(of.SimAMOptions, "cbam_core.attention.simam:SimAM"),
    "coordinate": Variant(of.CoordinateOptions, "cbam_core.attention.coordinate:Coordinate"),
    "triplet": Variant(of.TripletOptions, "cbam_core.attention.triplet:Triplet"),
    "gct": Variant(of.GCTOptions, "cbam_core.attention.gct:GCT"),
    "global_context": Variant(of.GlobalContextOptions, "cbam_core.attention.global_context:GlobalContext"),
}


def create_attention(name: str, channels: int, **options: Any) -> nn.Module:
    """The attention module `name` for feature maps of so many channels; `none` gives nn.Identity.

    Raises UnknownAttention, or pydantic's ValidationError (a ValueError) where an option is unknown or out of range.
    """
    if name not in VARIANTS:
        raise UnknownAttention(f"unknown attention {name!r}; known are {', '.join(VARIANTS)}")
    return attention_from_spec(VARIANTS[name].options(**options), channels)


def attention_from_spec(spec: of.Options, channels: int) -> nn.Module:
    """The attention module that `spec` (one of AttentionSpec) describes, for feature maps of so many channels."""
    fields = dict(spec)
    module, _, name = VARIANTS[fields.pop("type")].factory.partition(":")
    made: nn.Module = getattr(import_module(module), name)(channels, **fields)
    return made
