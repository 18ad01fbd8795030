"""Forward and backward of our attention modules against timm's, on the same input, side by side in one run.

    python benchmarks/attention.py [--device cpu|cuda] [--rounds 12] [--batch 8] [--dtype float32|bfloat16] [--compile]

Prints, for each module and each stage of ResNet-50: time, memory kept for the backward, and both as ratios
ours / timm's; 1.00 and less is the aim. Rounds are interleaved, so that whatever disturbs the machine disturbs both.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import timm.layers
import torch
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from timm.layers.global_context import GlobalContext as TimmGlobalContext
from torch import Tensor, nn

from cbam_core.attention import create_attention

STAGES = ((256, 56), (512, 28), (1024, 14), (2048, 7))
"""Channels and side of the map at the end of each stage of ResNet-50 at 224 × 224."""

PAIRS: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], nn.Module]]] = {
    "cbam": (
        lambda channels: create_attention("cbam", channels),
        lambda channels: CbamModule(channels, mlp_bias=True),
    ),
    "se": (
        lambda channels: create_attention("se", channels),
        lambda channels: timm.layers.SEModule(channels, rd_channels=channels // 16),
    ),
    "eca": (lambda channels: create_attention("eca", channels), timm.layers.EcaModule),
    "coordinate": (
        lambda channels: create_attention("coordinate", channels),
        lambda channels: CoordAttn(channels, rd_channels=max(8, channels // 32), bias=True),
    ),
    "global_context": (
        lambda channels: create_attention("global_context", channels),
        lambda channels: TimmGlobalContext(channels, fuse_add=True, fuse_scale=False, rd_channels=channels // 16),
    ),
}


def main() -> None:
    """Measures every pair on every stage and prints one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modules", nargs="+", default=list(PAIRS), choices=list(PAIRS), help="which to measure")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=12, help="interleaved rounds; the median counts")
    parser.add_argument("--batch", type=int, default=8, help="images per batch")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--compile", action="store_true", help="both through torch.compile")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, timm {timm.__version__}, {arguments.device}, {arguments.dtype}, "
          f"batch {arguments.batch}, {torch.get_num_threads()} threads{', compiled' * arguments.compile}")  # fmt: skip
    print(f"{'module':15} {'map':>13} {'ours ms':>9} {'timm ms':>9} {'time ×':>7} {'kept ×':>7}")
    for name in arguments.modules:
        for channels, side in STAGES:
            x = torch.randn(arguments.batch, channels, side, side, device=arguments.device)
            x = x.to(getattr(torch, arguments.dtype))
            modules = [make(channels).to(x.device, x.dtype) for make in PAIRS[name]]
            kept = [kept_bytes(module, x) for module in modules]
            if arguments.compile:
                modules = [torch.compile(module) for module in modules]
            ours, theirs = interleaved(modules, x, arguments.rounds)
            print(f"{name:15} {f'{channels}×{side}×{side}':>13} {ours * 1e3:9.2f} {theirs * 1e3:9.2f} "
                  f"{ours / theirs:7.2f} {kept[0] / kept[1]:7.3f}", flush=True)  # fmt: skip


def interleaved(modules: list[nn.Module], x: Tensor, rounds: int) -> list[float]:
    """Median seconds of one forward and backward of each module."""
    seconds: list[list[float]] = [[] for _ in modules]
    for module in modules:
        once(module, x)
    for _ in range(rounds):
        for index, module in enumerate(modules):
            seconds[index].append(once(module, x))
    return [median(times) for times in seconds]


def once(module: nn.Module, x: Tensor) -> float:
    """Seconds of one forward and backward, gradients of the input and of the weights."""
    image = x.detach().requires_grad_()
    synchronise(x)
    started = time.perf_counter()
    module(image).backward(x)
    synchronise(x)
    return time.perf_counter() - started


def synchronise(x: Tensor) -> None:
    """Waits until the device of `x` has done what it was asked for."""
    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def kept_bytes(module: nn.Module, x: Tensor) -> int:
    """Bytes that one forward keeps for its backward, each storage once, without the weights."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    storages: dict[int, int] = {}
    alive: list[Tensor] = []  # a freed storage could lend its address to the next one

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(x.detach().requires_grad_())
    return sum(storages.values())


if __name__ == "__main__":
    main()
