"""Networks with attention attached. Importing this package loads no torch; using a function of it does."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbam_core.networks.build import build_network
    from cbam_core.networks.convert import convert_state_dict
    from cbam_core.networks.sync_norm import synchronise_batch_norm

_HOMES = {"build_network": "build", "convert_state_dict": "convert", "synchronise_batch_norm": "sync_norm"}

__all__ = ["build_network", "convert_state_dict", "synchronise_batch_norm"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
