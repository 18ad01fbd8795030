"""Networks with attention attached. Importing this package loads no torch; using a function of it does."""

from typing import TYPE_CHECKING

from cbam_core import lazy_names

if TYPE_CHECKING:
    from cbam_core.networks.build import build_network
    from cbam_core.networks.convert import convert_state_dict
    from cbam_core.networks.pretrained import published_normalisation
    from cbam_core.networks.sync_norm import synchronise_batch_norm

_HOMES = {
    "build_network": "build",
    "convert_state_dict": "convert",
    "published_normalisation": "pretrained",
    "synchronise_batch_norm": "sync_norm",
}

__all__ = ["build_network", "convert_state_dict", "published_normalisation", "synchronise_batch_norm"]

__getattr__ = lazy_names(__name__, _HOMES)
