"""Attention as a part of a network that was not made for it: by hooks, which leave the names of its weights alone."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cbam_core.attention import Attention
from cbam_core.networks.timm_sites import Place

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""What runs all that it contains, one by one: attention inside would be one of its layers."""


def attach(network: nn.Module, name: str, place: Place, module: Attention, *, channels_last: bool) -> None:
    """Have `module` see the map at the module `name` of `network`; see `timm_sites.Site` for the places.

    It becomes `name` itself (se), or a submodule `attention` of it; a submodule of the network where `name` is a
    container, or has an `attention` of its own.
    """
    parent, _, own = name.rpartition(".")
    if place == "se" and not channels_last:
        setattr(network.get_submodule(parent), own, module)
        return
    if getattr(network.get_submodule(parent), own) is None:
        setattr(network.get_submodule(parent), own, nn.Identity())
    host = network.get_submodule(name)
    if isinstance(host, CONTAINERS) or hasattr(host, "attention"):
        network.add_module(f"attention_{name.replace('.', '_')}", module)
        host.register_forward_hook(AttendWith(module, channels_last))
    elif place == "drop_path":
        host.add_module("attention", module)
        host.register_forward_pre_hook(attend_before_channels_last if channels_last else attend_before)
    else:
        host.add_module("attention", module)
        host.register_forward_hook(attend_channels_last if channels_last else attend)


def attend(host: nn.Module, _: Any, output: Tensor) -> Tensor:
    """What the attention of `host` makes of its output, N C H W."""
    attended: Tensor = host.get_submodule("attention")(output)
    return attended


def attend_channels_last(host: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """The same of an output N H W C."""
    return attend(host, inputs, output.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def attend_before(host: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What the attention of `host` makes of its first input, N C H W."""
    return (host.get_submodule("attention")(inputs[0]), *inputs[1:])


def attend_before_channels_last(host: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same of an input N H W C."""
    return (host.get_submodule("attention")(inputs[0].permute(0, 3, 1, 2)).permute(0, 2, 3, 1), *inputs[1:])


@dataclass(frozen=True, eq=False)
class AttendWith:
    """A hook of a module that cannot hold `module`: what that makes of its output."""

    module: Attention
    channels_last: bool

    def __call__(self, _host: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        """The output, attended."""
        map_ = output.permute(0, 3, 1, 2) if self.channels_last else output
        attended: Tensor = self.module(map_)
        return attended.permute(0, 2, 3, 1) if self.channels_last else attended
