"""What a network costs: parameters, multiply-adds, activations, stage by stage, and what attention adds to each."""

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cbam_core.attention import Attention
from cbam_core.explain.site import AttentionSite

COUNTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]


@dataclass(frozen=True)
class StageCost:
    """One row of the table: a part of the network, what it returns (C, H, W or fewer axes), and what it costs.

    A part that returns several maps, as HRNet's stages do, shows the first, which has the highest resolution.
    """

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    activations: int
    attention_parameters: int
    attention_macs: int


@dataclass(frozen=True)
class Description:
    """What one network costs for one image.

    parameters   numbers that training changes
    macs         multiply-adds of convolutions and linear layers, the paper's rule
    torch_flops  what torch's own counter says of all matrix products; twice the multiply-adds where both see the same
    activations  numbers that convolutions and linear layers put out
    attention    every attention module
    stages       the table, in the order the network runs; parts without weights are left out
    """

    parameters: int
    macs: int
    torch_flops: int
    activations: int
    attention: tuple[AttentionSite, ...]
    stages: tuple[StageCost, ...]

    @property
    def attention_parameters(self) -> int:
        """Parameters of all attention modules together."""
        return sum(site.parameters for site in self.attention)

    @property
    def attention_macs(self) -> int:
        """Multiply-adds of all attention modules together."""
        return sum(site.macs for site in self.attention)

    @property
    def attention_share(self) -> float:
        """The share of the parameters that attention has, from 0 to 1."""
        return self.attention_parameters / self.parameters


@dataclass
class _Tally:
    """What the hooks note while one image runs through the network; the keys are dotted names of modules."""

    macs: Counter[str] = field(default_factory=Counter)
    activations: Counter[str] = field(default_factory=Counter)
    maps: dict[str, tuple[int, ...]] = field(default_factory=dict)  # what attention modules see: C, H, W
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)


def describe(network: nn.Module, input_shape: tuple[int, int, int]) -> Description:
    """Parameters, multiply-adds, activations and attention sites of `network` for one image of `input_shape` (C, H, W).

    Counts as the paper does (tables 4 and 5): convolutions and linear layers, each time they run, so that CBAM's
    shared MLP counts once per pool. Runs one image of zeros through the network, without touching its state; a
    network on the meta device is counted without computing anything. Raises what the network raises on a wrong shape.
    """
    first = next(network.parameters())
    image = torch.zeros(1, *input_shape, device=first.device, dtype=first.dtype)
    flops = FlopCounterMode(display=False)
    with _watched(network) as tally, evaluating(network), flops, torch.no_grad():
        network(image)
    sites = tuple(_site(network, name, tally) for name in attention_names(network))
    return Description(
        parameters=_parameters(network),
        macs=tally.macs.total(),
        torch_flops=flops.get_total_flops(),
        activations=tally.activations.total(),
        attention=sites,
        stages=tuple(_stages(network, tally, sites)),
    )


def attention_names(network: nn.Module, prefix: str = "") -> list[str]:
    """The dotted names of the attention modules in `network`, in their order, without the halves they are made of."""
    if isinstance(network, Attention):
        return [prefix]
    names = ((f"{prefix}.{name}" if prefix else name, child) for name, child in network.named_children())
    return [found for name, child in names for found in attention_names(child, name)]


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards each module is as it was."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _site(network: nn.Module, name: str, tally: _Tally) -> AttentionSite:
    module = network.get_submodule(name)
    channels, height, width = tally.maps[name]
    return AttentionSite(
        name=name,
        kind=type(module).__name__,
        channels=channels,
        height=height,
        width=width,
        parameters=_parameters(module),
        macs=_inside(tally.macs, name),
    )


def _stages(network: nn.Module, tally: _Tally, sites: tuple[AttentionSite, ...]) -> Iterator[StageCost]:
    """One row for every part of the network that has weights."""
    for name in _parts(network, tally):
        parameters = _parameters(network.get_submodule(name))
        inside = [site for site in sites if site.name == name or site.name.startswith(f"{name}.")]
        if parameters:
            yield StageCost(
                name=name,
                output_shape=tally.shapes[name],
                parameters=parameters,
                macs=_inside(tally.macs, name),
                activations=_inside(tally.activations, name),
                attention_parameters=sum(site.parameters for site in inside),
                attention_macs=sum(site.macs for site in inside),
            )


def _parts(network: nn.Module, tally: _Tally, prefix: str = "") -> Iterator[str]:
    """The names of the rows: children that run, and in the place of one that lists stages its own children.

    So too of a child that never runs itself, as a ModuleList.
    """
    for child_name, child in network.named_children():
        name = prefix + child_name
        lists_stages = not prefix and child_name in ("stages", "blocks", "features", "layers")
        if lists_stages or name not in tally.shapes:
            yield from _parts(child, tally, f"{name}.")
        else:
            yield name


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _inside(counts: Counter[str], name: str) -> int:
    """The sum over the module `name` and everything inside it; over everything where the name is empty."""
    return sum(count for key, count in counts.items() if not name or key == name or key.startswith(f"{name}."))


@contextmanager
def _watched(network: nn.Module) -> Iterator[_Tally]:
    """The tally of what runs meanwhile."""
    tally = _Tally()
    handles = [module.register_forward_hook(_note(tally, name)) for name, module in network.named_modules()]
    try:
        yield tally
    finally:
        for handle in handles:
            handle.remove()


def _note(tally: _Tally, name: str) -> Hook:
    """A hook that notes one run of the module `name`."""

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        first = output[0] if isinstance(output, list | tuple) and output else output
        if isinstance(first, Tensor):
            tally.shapes[name] = tuple(first.shape[1:])
        if isinstance(module, COUNTED) or _is_mixture(module):
            tally.macs[name] += output.numel() * _macs_per_output(module)
            tally.activations[name] += output.numel()
        if isinstance(module, Attention):
            tally.maps[name] = tuple(inputs[0].shape[1:])

    return hook


def _macs_per_output(module: Any) -> int:
    """Multiply-adds behind one number of the output: one row of the weight times a piece of the input."""
    if _is_mixture(module):
        return math.prod(module.weight_shape[1:])
    of_weight: int = module.weight.numel() // module.weight.shape[0]
    return of_weight


def _is_mixture(module: nn.Module) -> bool:
    """Whether it is timm's CondConv2d, whose weight has the kernels of all experts as rows, and mixes one of them."""
    timms = sys.modules.get("timm.layers.cond_conv2d")  # not imported: where nobody did, there is none
    return timms is not None and isinstance(module, timms.CondConv2d)
