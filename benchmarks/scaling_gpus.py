"""How a training grows with the GPUs of one machine: images/s, the size of DDP's buckets, torchrun against our start.

    python -m benchmarks.scaling_gpus [--backbone resnet50] [--image-size 224] [--batch 128] [--json PATH]
    python -m benchmarks.scaling_gpus --tiny

The batch is that of one GPU and stays as it is: the efficiency is images/s on N GPUs over N times those on one. Bucket
sizes are compared in a plain DDP loop, in turns, on all GPUs. `--tiny` runs two ranks on the CPU, over gloo.
"""

import argparse
import copy
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from benchmarks.loop import Block, speed_ratio, take_turns, training_parser
from benchmarks.report import SKIPPED, Report, add_json_option
from benchmarks.scaling import images_per_second
from cbam_core.networks import build_network
from cbam_core.spec import ModelSpec
from workers.train.learner import DTYPES

WORLD_SIZES = (1, 2, 4, 8)
BUCKET_MB = (5, 25, 100)
SYNTHETIC_IMAGES = 2048
CLASSES = 1000


def main() -> int:
    """Print the efficiencies and ratios."""
    options = _parser().parse_args()
    if options.rank:
        rank(argparse.Namespace(**options.rank))
        return 0
    gpus = torch.cuda.device_count()
    if gpus < 2 and not options.tiny:
        print(f"needs 2 GPUs; there is {gpus}")
        return SKIPPED
    if options.tiny:
        tiny = {"backbone": "cifar_resnet20", "image_size": 8, "precision": "fp32", "channels_last": False}
        vars(options).update(tiny, gpus=False, steps=2, rounds=1)
    report = Report("scaling_gpus", options.json, vars(options))
    world_sizes = [size for size in WORLD_SIZES if size <= (2 if options.tiny else gpus)]
    with tempfile.TemporaryDirectory() as folder:
        speeds = {size: trained(options, Path(folder), size, report) for size in world_sizes}
        for size in world_sizes[1:]:
            report.ratio(f"images/s on {size} / {size} × images/s on 1", speeds[size] / size / speeds[1])
        most = world_sizes[-1]
        theirs = trained(options, Path(folder), most, report, torchrun=True)
    report.ratio(f"images/s on {most}: our start / torchrun", speeds[most] / theirs)
    compare_buckets(options, most, report)
    return 0


def trained(
    options: argparse.Namespace, storage: Path, workers: int, report: Report, *, torchrun: bool = False
) -> float:
    """Images/s of one training on so many workers, each with its own batch."""
    per_epoch = SYNTHETIC_IMAGES // (workers * options.batch)
    whole = {"batch": workers * options.batch, "epochs": math.ceil(options.steps / per_epoch)}
    name = f"{workers}{'-torchrun' * torchrun}"
    started = time.perf_counter()
    run = argparse.Namespace(**(vars(options) | whole))
    speed = images_per_second(run, storage, name, workers=workers, torchrun=torchrun)
    seconds = time.perf_counter() - started
    print(f"{workers} worker(s){', torchrun' * torchrun}: {speed:.1f} images/s, {seconds:.1f} s in all", flush=True)
    report.add(workers=workers, torchrun=torchrun, images_per_second=speed, wall_seconds=seconds)
    return speed


def compare_buckets(options: argparse.Namespace, world_size: int, report: Report) -> None:
    """Run every rank of a DDP loop under torchrun, and report what rank 0 has measured."""
    passed = {name: value for name, value in vars(options).items() if name not in ("json", "rank")}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
    command = [*launcher, "-m", "benchmarks.scaling_gpus", "--rank", json.dumps(passed)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"the comparison of bucket sizes has failed\n{ran.stdout}")
    seconds = json.loads(ran.stdout.strip().splitlines()[-1])
    for name, values in seconds.items():
        speed = options.steps * options.batch * world_size / statistics.median(values)
        print(f"{name:<14} {speed:8.1f} images/s", flush=True)
        report.add(buckets=name, workers=world_size, images_per_second=speed, seconds=values)
    default = f"{BUCKET_MB[1]} MB buckets"
    for size in BUCKET_MB:
        if (name := f"{size} MB buckets") != default:
            report.ratio(f"speed: {name} / {default}", speed_ratio(seconds, name, default))
    report.ratio("speed: without exchange / " + default, speed_ratio(seconds, "no exchange", default))


def rank(options: argparse.Namespace) -> None:
    """One rank, as torchrun starts it: train with each bucket size in turns; rank 0 prints the seconds as JSON."""
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if options.gpus else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if options.gpus else "gloo")
    torch.manual_seed(0)
    model = ModelSpec.model_validate({"backbone": options.backbone, "attention": {"type": options.attention}})
    layout = torch.channels_last if options.channels_last else torch.contiguous_format
    network = build_network(model, CLASSES).to(device, memory_format=layout)
    ids = [device.index] if device.type == "cuda" else None
    images = torch.randn(options.batch, 3, options.image_size, options.image_size, device=device)
    images, labels = images.contiguous(memory_format=layout), torch.randint(CLASSES, (options.batch,), device=device)
    dtype = DTYPES[options.precision]
    blocks = {"no exchange": steps_of(copy.deepcopy(network), images, labels, dtype)}
    for size in BUCKET_MB:
        settings = {"bucket_cap_mb": size, "gradient_as_bucket_view": True, "static_graph": True}
        parallel = DistributedDataParallel(copy.deepcopy(network), ids, **settings)
        blocks[f"{size} MB buckets"] = steps_of(parallel, images, labels, dtype)
    seconds = take_turns(blocks, options.rounds, options.steps)
    distributed.barrier()
    if distributed.get_rank() == 0:
        print(json.dumps(seconds), flush=True)
    distributed.destroy_process_group()


def steps_of(network: nn.Module, images: Tensor, labels: Tensor, dtype: torch.dtype) -> Block:
    """Trains `network` on one batch."""
    optimizer = torch.optim.SGD(network.parameters(), 0.001, momentum=0.9)

    def train(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast(images.device.type, dtype, enabled=dtype != torch.float32):
                loss = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def _parser() -> argparse.ArgumentParser:
    parser = training_parser(__doc__, image_size=224)
    parser.set_defaults(backbone="resnet50", precision="bf16", channels_last=True, gpus=True, dataset="synthetic")
    parser.add_argument("--steps", type=int, default=20, help="of a training, at least; and of a turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every bucket size")
    parser.add_argument("--tiny", action="store_true", help="two ranks on the CPU, to see that it works")
    parser.add_argument("--rank", type=json.loads, help=argparse.SUPPRESS)
    add_json_option(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
