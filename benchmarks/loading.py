"""Images/s of a training on a folder of JPEGs: held in memory and changed there, streamed through processes, by timm.

    python -m benchmarks.loading [--backbone cifar_resnet20] [--processes 1] [--rounds 10]

All train the same network on the same folder with the same recipe: random resized crop, flip, SGD, cosine. timm's is a
loop made of its own parts (create_dataset, create_loader with its prefetcher, create_optimizer_v2, create_scheduler_v2,
NativeScaler), in the order of its train.py, which no package of timm's holds. The contestants take turns in one
process. Budget: ours, streamed, at least 1.0 × timm.
"""

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.loop import Block, recipe_of, speed_ratio, take_turns, training_parser
from cbam_core.networks import build_network
from cbam_core.spec import ExperimentSpec
from workers.data import load_dataset
from workers.protocol.assignment import Assignment
from workers.protocol.stop import StopSignal
from workers.tracking.tracker import Tracker
from workers.train.distributed import gang_of, training_device
from workers.train.learner import DTYPES
from workers.train.trainer import Trainer

CLASSES = 10
EPOCHS = 1000


def main() -> None:
    """Print the ratios."""
    options = _parser().parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        root = Path(folder, "images")
        make_images(root, options.images, options.side)
        specs = {
            "resident": spec_of(options, root, processes=0),
            "streamed": spec_of(options, root, processes=options.processes),
        }
        torch.set_num_threads(options.threads)
        blocks = {name: stack.enter_context(ours(spec, root, Path(folder, name))) for name, spec in specs.items()} | {
            "timm": by_timm(specs["streamed"], root)
        }
        seconds = take_turns(blocks, options.rounds, options.steps)
    for name, values in seconds.items():
        print(f"{name:<16} {options.steps * options.batch / statistics.median(values):8.1f} images/s")
    print(f"resident / streamed       {speed_ratio(seconds, 'resident', 'streamed'):.3f}")
    print(f"streamed / timm           {speed_ratio(seconds, 'streamed', 'timm'):.3f}  (budget ≥ 1.0)")
    print(f"resident / timm           {speed_ratio(seconds, 'resident', 'timm'):.3f}")


def _parser() -> argparse.ArgumentParser:
    parser = training_parser(__doc__, image_size=32, batch=64)
    parser.add_argument("--images", type=int, default=1000, help="JPEGs in the folder, which is made for this")
    parser.add_argument("--side", type=int, default=256, help="their sides, in pixels")
    parser.add_argument("--processes", type=int, default=1, help="that read images ahead, ours and timm's alike")
    parser.add_argument("--threads", type=int, default=1, help="of torch, in the process that trains")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=15, help="in a turn; far more than are read ahead")
    parser.add_argument("--gpu", action="store_true")
    return parser


def make_images(root: Path, count: int, side: int) -> None:
    """Smooth random pictures in ImageNet's layout: JPEGs of noise would be far larger than photographs."""
    random = np.random.default_rng(0)
    for part, number in (("train", count), ("val", CLASSES)):
        for index in range(number):
            folder = root / part / f"class{index % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(random.integers(256, size=(16, 16, 3), dtype=np.uint8))
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg", quality=90)


def spec_of(options: argparse.Namespace, root: Path, *, processes: int) -> ExperimentSpec:
    """The recipe, for us."""
    augment = {"random_resized_crop": True, "flip": 0.5}
    data = {"dataset": "imagefolder", "root": str(root), "image_size": options.image_size, "augment": augment}
    return ExperimentSpec.model_validate(
        {
            "name": "benchmark",
            "model": {"backbone": options.backbone, "attention": {"type": options.attention}},
            "data": data | {"workers_per_rank": processes},
            "train": recipe_of(options) | {"epochs": EPOCHS},
            "resources": {"gpus_per_worker": int(options.gpu), "cpus_per_worker": options.threads},
        }
    )


@contextlib.contextmanager
def ours(spec: ExperimentSpec, root: Path, folder: Path) -> Iterator[Block]:
    """Our loop with all it does at every step, but MLflow."""
    assignment = Assignment("benchmark", 1, "t", spec, str(folder), data_roots=(str(root),))
    with gang_of(assignment) as gang:
        dataset = load_dataset(spec.data, assignment.data_roots)
        if not spec.data.workers_per_rank:
            dataset = dataset.to(gang.device)
        trainer = Trainer(assignment, gang, dataset, tracker=Tracker(), report=lambda _: None, stop=StopSignal())
        with contextlib.closing(trainer.batches.train_from(0)) as batches:

            def train(steps: int) -> None:
                for _ in range(steps):
                    trainer.stop_agreed()
                    trainer.train_step(batches)

            yield train


def by_timm(spec: ExperimentSpec, root: Path) -> Block:
    """The same training as timm's train.py does it, on the same network."""
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter, NativeScaler

    device = training_device(Assignment("benchmark", 1, "t", spec, ""))
    recipe = spec.train
    loader = _timm_loader(spec, root, device)
    network = build_network(spec.model, CLASSES, 3).to(device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if recipe.compile:
        network.compile()
    sgd = {"lr": recipe.optimizer.lr, "momentum": 0.9, "weight_decay": recipe.optimizer.weight_decay}
    like_ours = {"opt": "momentum", "filter_bias_and_bn": False}  # else Nesterov, and no decay of norms and biases
    optimizer = create_optimizer_v2(network, **sgd, **like_ours)
    scheduler, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=EPOCHS, updates_per_epoch=len(loader), step_on_epochs=False
    )
    dtype = DTYPES[recipe.precision]
    scaler = NativeScaler() if recipe.precision == "fp16" else None
    criterion, losses = nn.CrossEntropyLoss().to(device), AverageMeter()
    batches = _for_ever(loader)
    updates = 0

    def train(steps: int) -> None:
        nonlocal updates
        network.train()
        for _ in range(steps):
            images, labels = next(batches)
            if recipe.channels_last:
                images = images.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, dtype, enabled=recipe.precision != "fp32"):
                loss = criterion(network(images), labels)
            if scaler is not None:
                scaler(loss, optimizer, parameters=network.parameters())
            else:
                loss.backward()
                optimizer.step()
            losses.update(loss.item(), images.size(0))
            optimizer.zero_grad()
            updates += 1
            scheduler.step_update(num_updates=updates, metric=losses.avg)

    return train


def _timm_loader(spec: ExperimentSpec, root: Path, device: torch.device) -> Any:
    from timm.data import create_dataset, create_loader

    return create_loader(
        create_dataset("", root=str(root), split="train", is_training=True),
        input_size=(3, spec.data.image_size, spec.data.image_size),
        batch_size=spec.train.global_batch_size,
        is_training=True,
        hflip=spec.data.augment.flip,
        color_jitter=None,
        interpolation="bilinear",
        num_workers=spec.data.workers_per_rank,
        pin_memory=device.type == "cuda",
        device=device,
    )


def _for_ever(loader: Any) -> Iterator[Any]:
    while True:
        yield from loader


if __name__ == "__main__":
    main()
