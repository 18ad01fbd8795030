"""How much of the learning rate each weight gets: less from layer to layer towards the input, and more in attention.

Layer-wise decay is that of BEiT (Bao et al. 2022), with the layers that timm's networks name (`group_matcher`): the
stem, each block, the head. An attention module is of the layer of its block or stage, so that a network with attention
and one without have the same rates for what they share.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from cbam_core.errors import SpecError
from cbam_core.networks.parts import attention_sites, is_below

RESIDUAL_LAYERS = {"stem": r"^conv1|bn1", "blocks": r"^layer(\d+)\.(\d+)"}
"""Of our own networks, as timm has it of its ResNets."""


def lr_scales(network: nn.Module, *, layer_decay: float | None, attention: float) -> dict[str, float]:
    """The factor of the learning rate of each parameter, by name.

    Raises SpecError where the network is one single layer, or has no weights in attention that `attention` could scale.
    """
    sites = attention_sites(network)
    names = [name for name, _ in network.named_parameters()]
    if attention != 1 and not any(is_below(name, sites) for name in names):
        raise SpecError("attention_lr_scale: the attention of this network has no weights; leave it out")
    layers = {} if layer_decay is None else layers_of(network)
    last = max(layers.values(), default=0)
    if layer_decay is not None and last == 0:
        raise SpecError("layer_decay: this network is one layer, as far as timm knows it; leave it out")
    decay = 1.0 if layer_decay is None else layer_decay
    return {
        name: decay ** (last - layers.get(name, last)) * (attention if is_below(name, sites) else 1.0) for name in names
    }


def layers_of(network: nn.Module) -> dict[str, int]:
    """The layer of each parameter, counted from 0 at the input."""
    from timm.models import group_parameters

    of_timm: Callable[..., Any] | None = getattr(network, "group_matcher", None)
    matcher = RESIDUAL_LAYERS if of_timm is None else of_timm(coarse=False)
    sites = attention_sites(network)
    found: dict[str, int] = group_parameters(network, matcher, reverse=True)
    layers = {name: layer for name, layer in found.items() if not is_below(name, sites)}
    for name, _ in network.named_parameters():
        if name not in layers:
            site = next(site for site in sites if is_below(name, [site]))
            layers[name] = _layer_of_site(network, site, layers)
    return layers


def _layer_of_site(network: nn.Module, site: str, layers: dict[str, int]) -> int:
    """The last layer of what an attention module stands in, or behind."""
    host = _host(network, site)
    while host:
        of_host = [layer for name, layer in layers.items() if is_below(name, [host])]
        if of_host:
            return max(of_host)
        host = host.rpartition(".")[0]
    return max(layers.values())


def _host(network: nn.Module, site: str) -> str:
    """What an attention module belongs to: that which holds it, or, right in the network, that which it is named for.

    `attention1` stands behind `layer1` of ours; `attention_stages_0` behind `stages.0` of timm's.
    """
    parent, _, own = site.rpartition(".")
    if parent:
        return parent
    number = own.removeprefix("attention")
    if number.isdecimal():
        return f"layer{number}"
    behind = number.removeprefix("_")
    return next((name for name, _ in network.named_modules() if name and name.replace(".", "_") == behind), "")
