"""What a network costs and what it looks at. Importing this package loads no torch; using a function of it does."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbam_core.explain.cost import AttentionSite, Description, StageCost, describe
    from cbam_core.explain.evidence import grad_cam
    from cbam_core.explain.figure import attention_figure
    from cbam_core.explain.maps import attention_maps

_HOMES = {
    "AttentionSite": "cost",
    "Description": "cost",
    "StageCost": "cost",
    "attention_figure": "figure",
    "attention_maps": "maps",
    "describe": "cost",
    "grad_cam": "evidence",
}

__all__ = [
    "AttentionSite",
    "Description",
    "StageCost",
    "attention_figure",
    "attention_maps",
    "describe",
    "grad_cam",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
