"""What a network costs: parameters, multiply-adds, and where its attention sits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cbam_core.attention import Attention

COUNTED = (nn.Conv1d, nn.Conv2d, nn.Linear)


@dataclass(frozen=True)
class AttentionSite:
    """One attention module of a network: its dotted name, its class, its channels, and what it adds."""

    name: str
    kind: str
    channels: int
    parameters: int
    macs: int


@dataclass(frozen=True)
class Description:
    """What one network costs for one image. macs: multiply-adds, convolutions and linear layers only."""

    parameters: int
    macs: int
    attention: tuple[AttentionSite, ...]


def describe(network: nn.Module, input_shape: tuple[int, int, int]) -> Description:
    """Parameters, multiply-adds and attention sites of `network` for one image of `input_shape` (C, H, W).

    Counts as the paper does (tables 4 and 5): convolutions and linear layers, each time they run, so that CBAM's
    shared MLP counts once per pool. Runs one image of zeros through the network, without touching its state; a
    network on the meta device is counted without computing anything. Raises what the network raises on a wrong shape.
    """
    macs: dict[str, int] = {}
    channels: dict[str, int] = {}
    device = next(network.parameters()).device
    with _watched(network, macs, channels), _evaluating(network), torch.no_grad():
        network(torch.zeros(1, *input_shape, device=device))
    modules = dict(network.named_modules())
    sites = (
        AttentionSite(
            name, type(modules[name]).__name__, channels[name], _parameters(modules[name]), _below(macs, name)
        )
        for name in attention_names(network)
    )
    return Description(_parameters(network), sum(macs.values()), tuple(sites))


def attention_names(network: nn.Module, prefix: str = "") -> list[str]:
    """The dotted names of the attention modules in `network`, in their order, without the halves they are made of."""
    if isinstance(network, Attention):
        return [prefix]
    names = ((f"{prefix}.{name}" if prefix else name, child) for name, child in network.named_children())
    return [found for name, child in names for found in attention_names(child, name)]


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _below(counts: dict[str, int], name: str) -> int:
    """The sum over the module `name` and everything inside it."""
    return sum(count for key, count in counts.items() if key == name or key.startswith(f"{name}."))


def _macs(layer: nn.Module, output: Tensor) -> int:
    """Multiply-adds of one run: one weight's row for each number of the output."""
    assert isinstance(layer, COUNTED)
    return output.numel() * (layer.weight.numel() // layer.weight.shape[0])


@contextmanager
def _watched(network: nn.Module, macs: dict[str, int], channels: dict[str, int]) -> Iterator[None]:
    """Every run of a counted layer adds to `macs`; the width of what enters an attention module goes to `channels`."""

    def count(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
            macs[name] = macs.get(name, 0) + _macs(layer, output)

        return hook

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            channels[name] = inputs[0].shape[1]

        return hook

    modules = list(network.named_modules())
    handles = [module.register_forward_hook(count(name)) for name, module in modules if isinstance(module, COUNTED)]
    handles += [
        module.register_forward_pre_hook(note(name)) for name, module in modules if isinstance(module, Attention)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; afterwards each module is as it was."""
    training = {module for module in network.modules() if module.training}
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
