"""What attention does to one batch of images: the gates of every block, as arrays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cbam_core.attention import Attention
from cbam_core.explain.cost import attention_names, evaluating

Maps = dict[str, npt.NDArray[np.float32]]


def attention_maps(network: nn.Module, images: Tensor) -> dict[str, Maps]:
    """The gates of each attention module for `images` (N C H W), by the dotted name of the module.

    `channel` holds Mc (N C), `spatial` holds Ms (N H W, at the resolution of the block), and `gate` holds the factor
    of modules that do not tell the two apart (N C H W). Global Context has `context`, how much each place counts in
    its pooled vector (N H W; 1 is an average place), and what comes of it: `added` to each channel, or the factor
    `channel` (N C). The network is left as it was. A module that runs twice shows its last run. Raises ValueError
    where the network has no attention.
    """
    if not attention_names(network):
        raise ValueError("this network has no attention to show")
    with _recorded(network) as found, evaluating(network), torch.no_grad():
        network(images)
    return {site: {kind: _array(kind, gate) for kind, gate in gates.items()} for site, gates in found.items()}


def _array(kind: str, gate: Tensor) -> npt.NDArray[np.float32]:
    if kind in ("channel", "added"):
        gate = gate.flatten(1)
    elif kind in ("spatial", "context"):
        gate = gate.squeeze(1)
    array: npt.NDArray[np.float32] = gate.float().cpu().numpy()
    return array


@contextmanager
def _recorded(network: nn.Module) -> Iterator[dict[str, dict[str, Tensor]]]:
    """The gates of every attention module that runs meanwhile."""
    found: dict[str, dict[str, Tensor]] = {}

    def record(site: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(module, Attention)
            found[site] = module.maps(inputs[0])

        return hook

    handles = [network.get_submodule(site).register_forward_pre_hook(record(site)) for site in attention_names(network)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
