"""What a network costs and what it looks at. Importing this package loads no torch; using a function of it does."""

from typing import TYPE_CHECKING

from cbam_core import lazy_names

if TYPE_CHECKING:
    from cbam_core.explain.cost import Description, StageCost, describe
    from cbam_core.explain.evidence import grad_cam
    from cbam_core.explain.figure import attention_figure
    from cbam_core.explain.maps import attention_maps
    from cbam_core.explain.memory import KeptForBackward, kept_for_backward
    from cbam_core.explain.site import AttentionSite

_HOMES = {
    "AttentionSite": "site",
    "Description": "cost",
    "KeptForBackward": "memory",
    "StageCost": "cost",
    "attention_figure": "figure",
    "attention_maps": "maps",
    "describe": "cost",
    "grad_cam": "evidence",
    "kept_for_backward": "memory",
}

__all__ = [
    "AttentionSite",
    "Description",
    "KeptForBackward",
    "StageCost",
    "attention_figure",
    "attention_maps",
    "describe",
    "grad_cam",
    "kept_for_backward",
]

__getattr__ = lazy_names(__name__, _HOMES)
