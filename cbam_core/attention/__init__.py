"""Attention modules: CBAM and what it is compared with. Importing this package loads no torch; using a module does."""

from typing import TYPE_CHECKING

from cbam_core import lazy_names
from cbam_core.attention.registry import VARIANTS, attention_from_spec, create_attention

if TYPE_CHECKING:  # at run time they come from the registry
    from cbam_core.attention.bam import BAM as BAM
    from cbam_core.attention.base import Attention as Attention
    from cbam_core.attention.base import Gate as Gate
    from cbam_core.attention.cbam import CBAM as CBAM
    from cbam_core.attention.cbam import ChannelAttention as ChannelAttention
    from cbam_core.attention.cbam import SpatialAttention as SpatialAttention
    from cbam_core.attention.coordinate import Coordinate as Coordinate
    from cbam_core.attention.eca import ECA as ECA
    from cbam_core.attention.gct import GCT as GCT
    from cbam_core.attention.global_context import GlobalContext as GlobalContext
    from cbam_core.attention.scse import SCSE as SCSE
    from cbam_core.attention.se import SE as SE
    from cbam_core.attention.simam import SimAM as SimAM
    from cbam_core.attention.triplet import Triplet as Triplet

_HOMES = {"Attention": "base", "Gate": "base", "ChannelAttention": "cbam", "SpatialAttention": "cbam"}
_FACTORIES = (options.factory for name, options in VARIANTS.items() if name != "none")
_HOMES |= {name: module.rpartition(".")[2] for module, _, name in (factory.partition(":") for factory in _FACTORIES)}

__all__ = ["VARIANTS", "attention_from_spec", "create_attention", *_HOMES]  # noqa: PLE0604

__getattr__ = lazy_names(__name__, _HOMES)
