"""Simulated, not measured: what gradients between the GPUs of a data-parallel training cost, by network and link.

    python -m benchmarks.communication [--step-ms 94] [--reference resnet50:cbam]

Prints a table of expected scaling efficiencies (docs/scaling.md has the assumptions). `scripts/gpu`, part `gpus`,
measures them.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cbam_core.explain.cost import describe
from cbam_core.networks import build_network
from cbam_core.spec import ModelSpec

BACKBONES = ("resnet18", "resnet50", "resnet101")
NETWORKS = tuple((backbone, attention) for backbone in BACKBONES for attention in ("none", "cbam"))
BUCKET_BYTES = 25 * 2**20  # DistributedDataParallel's default
BYTES_PER_GRADIENT = 4  # fp32, as the weights are under autocast
BACKWARD_SHARE = 2 / 3  # of a step


@dataclass(frozen=True)
class Link:
    """What connects each GPU to the next of the ring: bytes/s one way that data get, seconds for each hop."""

    name: str
    bandwidth: float
    latency: float
    workers: tuple[int, ...]


# 80 % of the nominal bandwidth; latencies of NCCL's tuning model (ring, protocol Simple)
LINKS = (
    Link("NVLink 4, 450 GB/s", 0.8 * 450e9, 3.4e-6, (2, 4, 8)),
    Link("PCIe 5 x16, 64 GB/s", 0.8 * 64e9, 5.7e-6, (2, 4, 8)),
    Link("100 Gbit/s Ethernet", 0.8 * 12.5e9, 14e-6, (2, 4, 8, 16)),
)


def all_reduce_seconds(size: float, link: Link, workers: int) -> float:
    """Seconds of a ring all-reduce of `size` bytes: 2(W-1) hops, each with 1/W of the bytes."""
    return 2 * (workers - 1) * (size / workers / link.bandwidth + link.latency)


def buckets(gradients: Sequence[int], limit: int = BUCKET_BYTES) -> list[int]:
    """Bytes of DDP's buckets in the order they become ready; `gradients` are bytes in the order of the parameters."""
    sizes = [0]
    for size in reversed(gradients):
        if sizes[-1] >= limit:
            sizes.append(0)
        sizes[-1] += size
    return sizes


def exposed_seconds(sizes: Sequence[int], link: Link, workers: int, backward: float) -> float:
    """Seconds from the end of the backward pass to that of the last all-reduce.

    A bucket is ready when the backward pass of `backward` seconds has made its bytes, all at one rate; the link carries
    one bucket at a time.
    """
    made, free_at = 0, 0.0
    for size in sizes:
        made += size
        free_at = max(free_at, backward * made / sum(sizes)) + all_reduce_seconds(size, link, workers)
    return free_at - backward


def efficiency(sizes: Sequence[int], link: Link, workers: int, step: float) -> float:
    """Images/s on `workers` GPUs over `workers` times those on one, whose step takes `step` seconds."""
    return step / (step + exposed_seconds(sizes, link, workers, BACKWARD_SHARE * step))


def network_cost(backbone: str, attention: str) -> tuple[list[int], int]:
    """Bytes of each parameter's gradient, and multiply-adds for one image of 224×224; nothing is allocated."""
    model = ModelSpec.model_validate({"backbone": backbone, "attention": {"type": attention}})
    with torch.device("meta"):
        network = build_network(model, num_classes=1000)
    gradients = [parameter.numel() * BYTES_PER_GRADIENT for parameter in network.parameters()]
    return gradients, describe(network, (3, 224, 224)).macs


def main() -> None:
    """Print the table; steps of other networks than the reference are its own scaled by multiply-adds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step-ms", type=float, default=94.0, help="a step of the reference on one GPU")
    parser.add_argument("--reference", default="resnet50:cbam", help="BACKBONE:ATTENTION that takes --step-ms")
    options = parser.parse_args()
    _, reference_macs = network_cost(*options.reference.split(":"))
    heads = [f"{link.name}, {' / '.join(map(str, link.workers))} GPUs" for link in LINKS]
    print(f"| network | gradients | step | {' | '.join(heads)} |\n|{'---|' * (3 + len(LINKS))}")
    for backbone, attention in NETWORKS:
        gradients, macs = network_cost(backbone, attention)
        step = options.step_ms / 1000 * macs / reference_macs
        sizes = buckets(gradients)
        cells = [
            " / ".join(f"{100 * efficiency(sizes, link, workers, step):.1f}" for workers in link.workers) + " %"
            for link in LINKS
        ]
        name = f"{backbone}{' + CBAM' * (attention == 'cbam')}"
        print(f"| {name} | {sum(gradients) / 1e6:.0f} MB | {step * 1e3:.0f} ms | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
