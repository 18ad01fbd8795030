"""Weights that others have published, fetched and named by timm."""

import timm
import torch
from torch import Tensor, nn

from cbam_core.attention import Attention
from cbam_core.errors import StateDictMismatch, UnknownBackbone, WeightsUnavailable


def create_timm(name: str, *, pretrained: bool = False, num_classes: int = 1000, in_channels: int = 3) -> nn.Module:
    """The network `name` as timm makes it, on the current default device; no weights are fetched for the meta device.

    Raises UnknownBackbone (timm knows no such network, tag or weights) or WeightsUnavailable (they cannot be fetched).
    """
    fetched = pretrained and torch.get_default_device().type != "meta"
    try:
        network: nn.Module = timm.create_model(name, pretrained=fetched, num_classes=num_classes, in_chans=in_channels)
    except RuntimeError as error:
        raise UnknownBackbone(f"timm:{name}: {error}") from error
    except OSError as error:
        raise WeightsUnavailable(f"the weights of {name} cannot be fetched: {error}") from error
    return network


def load_published_weights(network: nn.Module, name: str) -> None:
    """Puts timm's ImageNet weights of `name` into one of our residual networks; see `fit_weights`."""
    if torch.get_default_device().type != "meta":
        fit_weights(network, create_timm(name, pretrained=True).state_dict())


def fit_weights(network: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads `state`, all but what the new task needs new: attention, and a head or a stem of another width.

    Raises StateDictMismatch where anything else is missing, left over or of another shape.
    """
    own = network.state_dict()
    resized = [name for name in state if name in own and state[name].shape != own[name].shape]
    ends = ("fc.weight", "fc.bias", "conv1.weight")
    kept = {name: tensor for name, tensor in state.items() if name not in resized or name not in ends}
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
    sites = [name for name, module in network.named_modules() if isinstance(module, Attention)]
    return {key for key in network.state_dict() for site in sites if key.startswith(f"{site}.")}
