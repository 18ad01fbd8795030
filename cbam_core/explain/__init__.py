"""What a network costs and what it looks at. Importing this package loads no torch; using a function of it does."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbam_core.explain.cost import AttentionSite, Description, describe

_HOMES = {"AttentionSite": "cost", "Description": "cost", "describe": "cost"}

__all__ = ["AttentionSite", "Description", "describe"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
