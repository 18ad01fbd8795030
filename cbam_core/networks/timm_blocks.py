"""Where attention stood in timm's networks before version 0.2 (`semantics: 1`): at the outputs of their blocks.

Behind the shortcut, that is: kept for experiments that began so, and for nothing else.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cbam_core.attention import Attention
from cbam_core.errors import AttentionNotSupported
from cbam_core.networks.attach import AttentionPlan
from cbam_core.networks.pretrained import create_timm
from cbam_core.networks.timm_attach import attend

NOT_BLOCKS = ("stem", "head", "final_conv", "pre_logits", "classifier", "patch_embed")
"""Children of a network that look like blocks and are not."""


@dataclass(frozen=True)
class Block:
    """A module that returns a feature map: its dotted name, the channels of the map, the stage it belongs to."""

    name: str
    channels: int
    stage: int


def attach_behind_blocks(network: nn.Module, blocks: list[Block], plan: AttentionPlan) -> None:
    """Attention after each of `blocks` (BAM: after the last block of each stage but the last)."""
    for block, after in zip(blocks, (*blocks[1:], None), strict=True):
        ends_stage = after is None or after.stage != block.stage
        module = plan.after_stage(block.stage, block.channels) if ends_stage else nn.Identity()
        if not isinstance(module, Attention):
            module = plan.in_block(block.stage, block.channels)
        if isinstance(module, Attention):
            attach(network, block.name, module)


def attach(network: nn.Module, name: str, module: Attention) -> None:
    """The block `name` of `network` returns what `module`, from now on its submodule `attention`, makes of its output.

    A hook leaves the names of the block's own weights alone. Only a block that runs whatever it contains, one by one,
    is wrapped instead: `module` would become one of its layers.
    """
    block = network.get_submodule(name)
    if isinstance(block, nn.ModuleDict):
        parent, _, own = name.rpartition(".")
        wrapped = nn.Sequential(OrderedDict(block=block, attention=module))
        setattr(network.get_submodule(parent), own, wrapped)
        return
    block.add_module("attention", module)
    block.register_forward_hook(attend)


def find_blocks(name: str) -> list[Block]:
    """The blocks of timm's network `name`, in their order. Raises AttentionNotSupported where it has none that fit."""
    with torch.device("meta"):
        network = create_timm(name)
    outputs = _outputs(network)
    candidates = _composites(network, "") or _feature_points(network)
    returned = {candidate: outputs[candidate] for candidate in candidates if candidate in outputs}
    for candidate, output in returned.items():
        reason = _unfit(output)
        if reason:
            raise AttentionNotSupported(
                f"timm:{name} cannot carry attention: {candidate} returns {reason}, not a map N C H W"
            )
    if not returned:
        raise AttentionNotSupported(f"timm:{name} cannot carry attention: it has no blocks that can be told apart")
    sizes = sorted({output.shape[2] for output in returned.values()}, reverse=True)
    return [Block(found, output.shape[1], sizes.index(output.shape[2]) + 1) for found, output in returned.items()]


def _outputs(network: nn.Module) -> dict[str, Tensor]:
    """What each module returns for one image on the meta device, by its dotted name, in the order of the calls."""
    outputs: dict[str, Tensor] = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _i, output, name=name: outputs.update({name: output}))
    size = _said(network, "pretrained_cfg")["input_size"]
    with torch.no_grad():
        network.eval()(torch.zeros(1, *size, device="meta"))
    return outputs


def _unfit(output: object) -> str | None:
    """What is wrong with the output of a block as a feature map of a square image; None where nothing is."""
    if not isinstance(output, Tensor):
        return f"a {type(output).__name__}"
    if output.ndim != 4:
        return "tokens N L C" if output.ndim == 3 else f"{output.ndim} axes"
    return None if output.shape[2] == output.shape[3] else "channels last, N H W C"


def _composites(module: nn.Module, prefix: str) -> list[str]:
    """The outermost modules with two or more weight layers that are not just lists, stages or stems of others."""
    found = []
    for name, child in module.named_children():
        path = f"{prefix}.{name}" if prefix else name
        if not prefix and name.startswith(NOT_BLOCKS):
            continue
        if isinstance(child, nn.Sequential | nn.ModuleList) or type(child).__name__.endswith("Stage"):
            found += _composites(child, path)
        elif sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in child.modules()) > 1:
            found.append(path)
    return found


def _feature_points(network: nn.Module) -> list[str]:
    """Where timm itself takes features from: what is left for networks without blocks, such as VGG."""
    return [point["module"] for point in _said(network, "feature_info")]


def _said(network: nn.Module, attribute: str) -> Any:
    """What timm's network says about itself; torch types every attribute as a tensor or a module."""
    return vars(network)[attribute]
