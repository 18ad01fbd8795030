"""Time and peak memory of one training step: without attention, with CBAM of plain modules, with CBAM fused.

    python -m benchmarks.step [--backbone resnet50] [--image-size 224] [--batch 128] [--compile] [--json PATH]

A step is `Learner.learn`, as in every training: forward, backward, optimizer, on random images that stay on the
device. Contestants take turns of a few steps each; the ratios are medians over the rounds. bf16 and channels_last are
on by default. Budget: CBAM fused / none ≤ 1.15.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.loop import recipe_of, speed_ratio, take_turns, training_parser
from benchmarks.report import Report, add_json_option
from cbam_core.networks import build_network
from cbam_core.spec import ModelSpec, TrainSpec
from workers.seeding import reproducible
from workers.train.distributed import ProcessGroup
from workers.train.learner import Learner

CONTESTANTS = {"none": ("none", "off"), "cbam fused": ("cbam", "auto"), "cbam plain": ("cbam", "off")}
"""Type of attention, and whether it may run fused."""
FUSED = ("ResidualTail", "cbam_core::residual_tail")
"""What the profiler calls the fused tail: the autograd function, and the operator that torch.compile sees."""
RATE = 0.001
MIB = 2**20


@dataclass
class Contestant:
    """A learner and what its steps have shown."""

    learner: Learner
    images: Tensor
    labels: Tensor
    first_seconds: float = 0.0
    peak_bytes: int = 0
    fused_calls: int = 0

    def train(self, steps: int) -> None:
        """Train so many steps, and note the most memory they needed, without what other contestants hold."""
        device = self.images.device
        before = torch.cuda.memory_allocated(device) if self.images.is_cuda else 0
        if self.images.is_cuda:
            torch.cuda.reset_peak_memory_stats(device)
        for step in range(steps):
            self.learner.learn(self.images, self.labels, rate=RATE, step=step)
        if self.images.is_cuda:
            peak = torch.cuda.max_memory_allocated(device) - before
            self.peak_bytes = max(self.peak_bytes, peak + self._held_bytes())

    def count_fused_calls(self) -> None:
        """Train a step and see how often the fused operator ran in it: "auto" leaves it out without a word."""
        with torch.autograd.profiler.profile(use_kineto=False) as profile:
            self.train(1)
        self.fused_calls = sum(event.count for event in profile.key_averages() if event.key in FUSED)

    def _held_bytes(self) -> int:
        """Bytes of weights, buffers and what the optimizer keeps of them."""
        network, states = self.learner.network, self.learner.optimizer.state.values()
        values = [*network.parameters(), *network.buffers()]
        values += [value for state in states for value in state.values() if isinstance(value, Tensor)]
        return sum(value.nbytes for value in values)


def main() -> None:
    """Print the ratios."""
    parser = training_parser(__doc__, image_size=224)
    parser.set_defaults(backbone="resnet50", precision="bf16", channels_last=True)
    parser.add_argument("--channels", type=int, default=3, help="of the images")
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    parser.add_argument("--start-within", type=float, default=float("inf"), metavar="SECONDS",
                        help="leave out contestants whose turn to compile comes later")  # fmt: skip
    add_json_option(parser)
    options = parser.parse_args()
    report = Report("step", options.json, vars(options))
    with reproducible(False):  # as every training; cuDNN chooses its kernels
        contestants = dict(_contestants(options, report))
        blocks = {name: one.train for name, one in contestants.items()}
        seconds = take_turns(blocks, options.rounds, options.steps)
    print(f"{'contestant':<12} {'ms':>8} {'images/s':>9} {'peak MiB':>9} {'first s':>8}")
    for name, values in seconds.items():
        one, step = contestants[name], statistics.median(values) / options.steps
        print(f"{name:<12} {step * 1e3:8.2f} {options.batch / step:9.1f} {one.peak_bytes / MIB:9.0f} "
              f"{one.first_seconds:8.1f}")  # fmt: skip
        report.add(
            contestant=name,
            step_ms=step * 1e3,
            images_per_second=options.batch / step,
            peak_bytes=one.peak_bytes,
            first_seconds=one.first_seconds,
            fused_calls=one.fused_calls,
            seconds=values,
        )
    for name, budget in (("cbam fused", 1.15), ("cbam plain", None)):
        if name in seconds and "none" in seconds:
            report.ratio(f"step time: {name} / none", speed_ratio(seconds, "none", name), at_most=budget)
            if none_peak := contestants["none"].peak_bytes:
                report.ratio(f"peak memory: {name} / none", contestants[name].peak_bytes / none_peak)


def _contestants(options: argparse.Namespace, report: Report) -> Iterator[tuple[str, Contestant]]:
    """Each that can train, after its first step, which chooses kernels and compiles; the report names the others."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    begun = time.perf_counter()
    for name, (attention, fused) in CONTESTANTS.items():
        if (passed := time.perf_counter() - begun) > options.start_within:
            report.note(f"{name}: left out, the others took {passed:.0f} s to start")
            continue
        try:
            one = contestant(options, attention, fused, device)
            started = time.perf_counter()
            one.train(1)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            one.first_seconds = time.perf_counter() - started
            one.count_fused_calls()
            one.peak_bytes = 0  # to choose a kernel takes more than a step
        except Exception as error:  # one that cannot run must not hide the others
            report.note(f"{name}: left out, {type(error).__name__}: {error}")
            continue
        print(f"{name}: the first step took {one.first_seconds:.1f} s", flush=True)
        if fused != "off":
            report.note(f"{name}: {one.fused_calls} calls of the fused tail in a forward pass")
        yield name, one


def contestant(options: argparse.Namespace, attention: str, fused: str, device: torch.device) -> Contestant:
    """A learner of the network with this attention. Raises ValueError where it was to be fused and cannot be."""
    recipe: dict[str, object] = recipe_of(options)
    if "fused" in TrainSpec.model_fields:
        recipe["fused"] = fused
    torch.manual_seed(0)
    model = ModelSpec.model_validate({"backbone": options.backbone, "attention": {"type": attention}})
    network = build_network(model, options.classes, options.channels)
    if fused != "off":
        _require_fused(device, channels_last=options.channels_last)
    for module in network.modules():
        if hasattr(module, "fused"):
            module.fused = fused  # type: ignore[assignment]
    network.train()
    learner = Learner(TrainSpec.model_validate(recipe), network, ProcessGroup(0, 1, device))
    images = torch.randn(options.batch, options.channels, options.image_size, options.image_size, device=device)
    labels = torch.randint(options.classes, (options.batch,), device=device)
    return Contestant(learner, images, labels)


def _require_fused(device: torch.device, *, channels_last: bool) -> None:
    with contextlib.suppress(ImportError):
        from cbam_core.fused import unavailable

        if reason := unavailable(device) or (None if channels_last else "channels_last is off"):
            raise ValueError(reason)
        return
    raise ValueError("there is no cbam_core.fused")


if __name__ == "__main__":
    main()
