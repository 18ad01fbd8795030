"""Images/s of our training loop against a bare PyTorch loop, and with tracking on against off; each a ratio.

    python -m benchmarks.loop [--backbone cifar_resnet20] [--image-size 16] [--blocks 30]
    python -m benchmarks.loop --gpu --backbone resnet50 --image-size 224 --precision bf16 --channels-last [--compile]

The contestants take turns, a few steps each, so that whatever else the machine does meets all of them alike; the ratio
is the median over the rounds. Budgets: ours / bare ≥ 0.98, tracking on / off ≥ 0.99. Where MLflow is not installed,
tracking is left out. `--bare-fused-optimizer` gives the bare loop PyTorch's fused SGD in place of its default.
"""

import argparse
import contextlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.report import Report, add_json_option
from cbam_core.networks import build_network
from cbam_core.spec import ExperimentSpec
from workers.data import load_dataset
from workers.protocol.assignment import Assignment
from workers.protocol.fence import Fence
from workers.protocol.outcome import Outcome
from workers.protocol.stop import StopSignal
from workers.seeding import reproducible
from workers.tracking.mlflow_tracker import MlflowTracker
from workers.tracking.tracker import Tracker
from workers.train.distributed import gang_of
from workers.train.learner import DTYPES
from workers.train.trainer import CURVE_POINTS, Trainer

DIGITS = 1437  # images to train on: so many epochs of them that every single step is logged
Block = Callable[[int], None]
"""Trains so many steps."""


def main() -> None:
    """Print the ratios."""
    parser = training_parser(__doc__)
    parser.add_argument("--blocks", type=int, default=30)
    parser.add_argument("--steps", type=int, default=8, help="steps in a block")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--bare-fused-optimizer", action="store_true", help="the bare loop's SGD in fused kernels")
    add_json_option(parser)
    options = parser.parse_args()
    report = Report("loop", options.json, vars(options))
    spec = ExperimentSpec.model_validate(
        {
            "name": "benchmark",
            "model": {"backbone": options.backbone, "attention": {"type": options.attention}},
            "data": {"dataset": "digits", "image_size": options.image_size},
            "train": recipe_of(options) | {"epochs": max(1, CURVE_POINTS * options.batch // DIGITS)},
            "resources": {"gpus_per_worker": int(options.gpu)},
        }
    )
    torch.set_num_threads(spec.resources.cpus_per_worker)
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        stack.enter_context(reproducible(spec.train.deterministic))  # as every training; cuDNN chooses kernels for all
        blocks = {
            "bare loop": bare(spec, fused_optimizer=options.bare_fused_optimizer),
            "ours": stack.enter_context(ours(spec, Path(folder, "off"), tracking=False)),
        }
        if importlib.util.find_spec("mlflow"):
            blocks["ours, tracking"] = stack.enter_context(ours(spec, Path(folder, "on"), tracking=True))
        else:
            report.note("ours, tracking: left out, MLflow is not installed")
        seconds = take_turns(blocks, options.blocks, options.steps)
    for name, values in seconds.items():
        images_per_second = options.steps * options.batch / statistics.median(values)
        print(f"{name:<16} {images_per_second:8.1f} images/s")
        report.add(contestant=name, images_per_second=images_per_second, seconds=values)
    report.ratio("ours / bare loop", speed_ratio(seconds, "ours", "bare loop"), at_least=0.98)
    if "ours, tracking" in seconds:
        report.ratio("tracking on / off", speed_ratio(seconds, "ours, tracking", "ours"), at_least=0.99)


def training_parser(description: str | None, *, image_size: int = 16, batch: int = 128) -> argparse.ArgumentParser:
    """A parser that knows what every benchmark of a training has to be told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="cifar_resnet20")
    parser.add_argument("--attention", default="cbam")
    parser.add_argument("--image-size", type=int, default=image_size, help="what the network gets")
    parser.add_argument("--batch", type=int, default=batch, help="of all workers together")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--compile", action="store_true")
    return parser


def recipe_of(options: argparse.Namespace) -> dict[str, object]:
    """What these options say about `train`."""
    names = ("precision", "channels_last", "compile")
    return {name: getattr(options, name) for name in names} | {"global_batch_size": options.batch}


def speed_ratio(seconds: dict[str, list[float]], ours: str, theirs: str) -> float:
    """Median over the rounds of how many times as fast `ours` was as `theirs` in the same round."""
    return statistics.median(b / a for a, b in zip(seconds[ours], seconds[theirs], strict=True))


def take_turns(blocks: dict[str, Block], rounds: int, steps: int) -> dict[str, list[float]]:
    """Seconds of every contestant in every round. The order rotates; two more rounds warm up first."""
    seconds: dict[str, list[float]] = {name: [] for name in blocks}
    names = list(blocks)
    for number in range(rounds + 2):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            _wait_for_gpu()
            started = time.perf_counter()
            blocks[name](steps)
            _wait_for_gpu()
            if number >= 2:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def bare(spec: ExperimentSpec, *, fused_optimizer: bool = False) -> Block:
    """What anyone would write: float images in memory, forward, backward, step; no log, no checkpoint, no question."""
    device = torch.device("cuda" if spec.resources.gpus_per_worker else "cpu")
    dataset = load_dataset(spec.data)
    images = ((dataset.train.images / 255 - dataset.mean[0]) / dataset.std[0]).to(device)
    labels = dataset.train.labels.to(device)
    torch.manual_seed(0)
    network = build_network(spec.model, dataset.num_classes, dataset.input_shape[0]).to(device)
    recipe, sgd = spec.train, spec.train.optimizer
    memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
    network = network.to(memory_format=memory_format)
    if recipe.compile:
        network.compile()
    dtype = DTYPES[recipe.precision]
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    fused = True if fused_optimizer else None  # None: PyTorch's choice
    optimizer = torch.optim.SGD(network.parameters(), sgd.lr, momentum=0.9, weight_decay=sgd.weight_decay, fused=fused)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(len(images)).to(device)
            yield from order.split(spec.train.global_batch_size)[: len(images) // spec.train.global_batch_size]

    indices = batches()

    def train(steps: int) -> None:
        for _ in range(steps):
            batch = next(indices)
            with torch.autocast(device.type, dtype, enabled=recipe.precision != "fp32"):
                scores = network(images[batch].contiguous(memory_format=memory_format))
                loss = F.cross_entropy(scores, labels[batch])
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    return train


@contextlib.contextmanager
def ours(spec: ExperimentSpec, folder: Path, *, tracking: bool) -> Iterator[Block]:
    """Our loop with all it does at every step; tracking goes to a real MLflow store."""
    uri = f"sqlite:///{folder}/mlflow.db"
    assignment = Assignment("benchmark", 1, "t", spec, str(folder), tracking_uri=uri if tracking else None)
    Fence(assignment).take()
    assignment.folder.spec.write_text(spec.to_yaml())
    tracker = MlflowTracker(assignment, uri) if tracking else Tracker()
    with gang_of(assignment) as gang:
        dataset = load_dataset(spec.data).to(gang.device)
        trainer = Trainer(assignment, gang, dataset, tracker=tracker, report=lambda _: None, stop=StopSignal())
        batches = trainer.batches.train_from(0)

        def train(steps: int) -> None:
            for _ in range(steps):
                trainer.stop_agreed()
                trainer.train_step(batches)

        yield train
        tracker.close(Outcome("cancelled"))


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
