"""Attention modules: CBAM and what it is compared with. Importing this package loads no torch; using a module does."""

from typing import TYPE_CHECKING

from cbam_core import lazy_names
from cbam_core.attention.registry import VARIANTS, attention_from_spec, create_attention

if TYPE_CHECKING:
    from cbam_core.attention.bam import BAM
    from cbam_core.attention.base import Attention, Gate
    from cbam_core.attention.cbam import CBAM, ChannelAttention, SpatialAttention
    from cbam_core.attention.coordinate import Coordinate
    from cbam_core.attention.eca import ECA
    from cbam_core.attention.gct import GCT
    from cbam_core.attention.global_context import GlobalContext
    from cbam_core.attention.scse import SCSE
    from cbam_core.attention.se import SE
    from cbam_core.attention.simam import SimAM
    from cbam_core.attention.triplet import Triplet

_HOMES = {
    "Attention": "base",
    "Gate": "base",
    "CBAM": "cbam",
    "ChannelAttention": "cbam",
    "SpatialAttention": "cbam",
    "SE": "se",
    "BAM": "bam",
    "Coordinate": "coordinate",
    "ECA": "eca",
    "GCT": "gct",
    "GlobalContext": "global_context",
    "SCSE": "scse",
    "SimAM": "simam",
    "Triplet": "triplet",
}

__all__ = [
    "BAM",
    "CBAM",
    "ECA",
    "GCT",
    "SCSE",
    "SE",
    "VARIANTS",
    "Attention",
    "ChannelAttention",
    "Coordinate",
    "Gate",
    "GlobalContext",
    "SimAM",
    "SpatialAttention",
    "Triplet",
    "attention_from_spec",
    "create_attention",
]

__getattr__ = lazy_names(__name__, _HOMES)
