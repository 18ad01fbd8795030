"""Weights that others have published, fetched and named by timm.

timm takes a second to load, so it is loaded where a spec asks for something of it.
"""

import torch
from torch import Tensor, nn

from cbam_core.backbones import TIMM_PREFIX
from cbam_core.errors import StateDictMismatch, UnknownBackbone, WeightsUnavailable
from cbam_core.networks.parts import attention_sites, is_below
from cbam_core.normalisation import Normalisation
from cbam_core.spec import ModelSpec


def create_timm(name: str, *, pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """The network `name` as timm makes it, on the current default device; no weights are fetched for the meta device.

    Raises UnknownBackbone (timm knows no such network, tag or weights) or WeightsUnavailable (they cannot be fetched).
    """
    import timm

    fetched = pretrained and torch.get_default_device().type != "meta"
    try:
        network: nn.Module = timm.create_model(name, pretrained=fetched, num_classes=num_classes, in_chans=in_channels)
    except RuntimeError as error:
        raise UnknownBackbone(f"timm:{name}: {error}") from error
    except OSError as error:
        raise WeightsUnavailable(f"the weights of {name} cannot be fetched: {error}") from error
    return network


def published_normalisation(model: ModelSpec, in_channels: int = 3) -> Normalisation | None:
    """What the published weights that `model` starts from were trained with; None where it starts from random ones.

    Raises UnknownBackbone where timm knows no such network or weights.
    """
    if not model.pretrained:
        return None
    import timm

    name = model.backbone.removeprefix(TIMM_PREFIX)
    try:
        published = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise UnknownBackbone(f"timm:{name}: {error}") from error
    assert published is not None, "timm raises for what it does not know"
    return Normalisation(tuple(published.mean), tuple(published.std)).over(in_channels)


def load_published_weights(network: nn.Module, name: str, in_channels: int = 3) -> None:
    """Puts timm's ImageNet weights of `name` into one of our residual networks; see `fit_weights`.

    For images of another number of channels timm makes the first convolution's filters from those for three.
    """
    if torch.get_default_device().type != "meta":
        fit_weights(network, create_timm(name, pretrained=True, in_channels=in_channels).state_dict())


def fit_weights(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads `state`, all but what the new task needs new: attention, and a head of another width.

    Raises StateDictMismatch where anything else is missing, left over or of another shape.
    """
    own = network.state_dict()
    resized = [name for name in state if name in own and state[name].shape != own[name].shape]
    head = ("fc.weight", "fc.bias")
    kept = {name: tensor for name, tensor in state.items() if name not in resized or name not in head}
    fresh = {*resized, *_attention_keys(network)}
    missing = [name for name in own if name not in kept and name not in fresh]
    unexpected = [name for name in kept if name not in own]
    clashing = [name for name in resized if name in kept]
    for problem, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", clashing)):
        if names:
            raise StateDictMismatch(f"{len(names)} weights {problem}, the first is {names[0]}")
    network.load_state_dict(kept, strict=False)


def _attention_keys(network: nn.Module) -> set[str]:
    """The names of all weights inside attention modules."""
    sites = attention_sites(network)
    return {key for key in network.state_dict() if is_below(key, sites)}
