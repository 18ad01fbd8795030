"""Time and memory of the end of a residual block, relu(attention(norm(z)) + shortcut): eager, compiled and fused.

    python -m benchmarks.tail [--inference] [--batch 128] [--rounds 9] [--json PATH]
    python -m benchmarks.tail --traffic

For the map at the end of each stage of ResNet-50 at 224 × 224: forward and backward in training mode, or forward in
eval mode. Weights are fp32, maps bf16 in channels_last, under autocast as in a training. Contestants take turns;
medians. The device is kept busy until a turn is enqueued, so that its time is without the host's, as in a network
whose convolutions let the host run ahead; the host's time stands beside it. Inputs change with every iteration, so
that none comes from the cache. The network's time counts each stage as often as ResNet-50 has blocks in it.
U is the time of reading or writing the map once at the speed of a large copy.

With `--traffic` nothing is measured: what the compiled tails of the first stage read and write, forward and backward,
is counted in the code that inductor generates for this device, in U, one read or write of the map in bf16.
"""

import argparse
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.report import Report, add_json_option
from cbam_core.attention import create_attention


class Stage(NamedTuple):
    """The map at the end of a stage, and how many blocks end with one."""

    channels: int
    side: int
    blocks: int


STAGES = (Stage(256, 56, 3), Stage(512, 28, 4), Stage(1024, 14, 6), Stage(2048, 7, 3))
TINY_STAGES = (Stage(16, 8, 3), Stage(32, 4, 4))
ATTENTIONS = ("none", "se", "cbam")
FUSED = "cbam fused"
ITERATIONS = 10  # in a turn; the launches of more would not fit the queue of the device, and the host would wait
CACHE_BYTES = 256 * 2**20  # more than the level 2 cache of any GPU
BUSY_CYCLES_PER_SECOND = 2e9


class Tail(nn.Module):
    """Norm, attention, shortcut and ReLU; with `fused`, as the one operator of the attention module."""

    def __init__(self, attention: nn.Module, channels: int, *, fused: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.attention = attention
        self.fused = fused

    def forward(self, z: Tensor, shortcut: Tensor) -> Tensor:  # N C H W, twice -> N C H W
        """The end of one block."""
        if self.fused:
            result: Tensor = self.attention.residual(z, shortcut, self.norm)  # type: ignore[operator]
            return result
        return torch.relu_(self.attention(self.norm(z)) + shortcut)


@dataclass
class Contestant:
    """One way to compute the tail of a stage, and what was measured of it."""

    name: str
    run: Callable[[], object]
    first_seconds: float = 0.0
    kept_bytes: int | None = None
    device_ms: list[float] = field(default_factory=list)
    host_ms: list[float] = field(default_factory=list)


def main() -> None:
    """Measure every stage, and print the ratios over the network."""
    options = _parser().parse_args()
    report = Report("tail", options.json, vars(options))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stages = TINY_STAGES if options.tiny else STAGES
    if options.tiny:
        options.batch, options.rounds = 2, 1
    if options.traffic:
        _report_traffic(stages[0], device, report)
        return
    speed = copy_bytes_per_second(device, 2**20 if options.tiny else 2**30)
    report.add(copy_gb_per_second=speed / 1e9)
    print(f"a copy moves {speed / 1e9:.0f} GB/s, read and written")
    print(
        f"{'stage':>13} {'contestant':<15} {'ms':>8} {'U':>6} {'host ms':>8} {'kept U':>7} {'first s':>8}", flush=True
    )
    times: dict[str, list[float]] = {}
    kept: dict[str, list[float]] = {}
    for stage in stages:
        unit_bytes = options.batch * stage.channels * stage.side**2 * 2
        for one in measured(stage, options, device, report):
            ms, host_ms = statistics.median(one.device_ms), statistics.median(one.host_ms)
            units = ms / 1e3 * speed / unit_bytes
            kept_units = None if one.kept_bytes is None else one.kept_bytes / unit_bytes
            size = f"{stage.channels}×{stage.side}×{stage.side}"
            kept_text = "" if kept_units is None else f"{kept_units:.2f}"
            print(f"{size:>13} {one.name:<15} {ms:8.3f} {units:6.1f} {host_ms:8.3f} {kept_text:>7} "
                  f"{one.first_seconds:8.1f}", flush=True)  # fmt: skip
            report.add(stage=size, contestant=one.name, ms=ms, units=units, host_ms=host_ms, kept_units=kept_units,
                       kept_bytes=one.kept_bytes, first_seconds=one.first_seconds, turns_ms=one.device_ms)  # fmt: skip
            times.setdefault(one.name, []).append(ms * stage.blocks)
            if one.kept_bytes is not None:
                kept.setdefault(one.name, []).append(one.kept_bytes * stage.blocks)
    _ratios(report, *({name: sum(v) for name, v in by.items() if len(v) == len(stages)} for by in (times, kept)),
            inference=options.inference)  # fmt: skip


def measured(stage: Stage, options: argparse.Namespace, device: torch.device, report: Report) -> list[Contestant]:
    """Every contestant of a stage with its numbers, but those that cannot run, which the report names."""
    torch._dynamo.reset()  # or it would take the next stage for a dynamic shape, and give up after eight
    inputs = itertools.cycle(_inputs(stage, options, device))
    contestants = []
    for name, tail in tails(stage, device, *next(inputs)[:2], report):
        if name not in (options.only or [name]):
            continue
        tail.train(not options.inference)
        one = Contestant(name, partial(_forward if options.inference else _both_ways, tail, inputs))
        try:
            started = time.perf_counter()
            one.run()
            synchronize(device)
            one.first_seconds = time.perf_counter() - started
            one.kept_bytes = None if options.inference else kept_bytes(tail, inputs)
            turn(one, device, busy_seconds=0.0)
        except Exception as error:  # one that cannot run must not hide the others
            report.note(f"{name}, {stage.channels} channels: left out, {type(error).__name__}: {error}")
            continue
        contestants.append(one)
    busy_seconds = [sum(one.host_ms) / 1e3 for one in contestants]
    for one in contestants:
        one.device_ms, one.host_ms = [], []
    for number in range(options.rounds):
        for index in range(len(contestants)):
            chosen = (number + index) % len(contestants)
            turn(contestants[chosen], device, busy_seconds=busy_seconds[chosen] * ITERATIONS)
    return contestants


def tails(
    stage: Stage, device: torch.device, z: Tensor, shortcut: Tensor, report: Report
) -> Iterator[tuple[str, nn.Module]]:
    """Each attention eager and compiled, and CBAM fused where it can be."""

    def made(attention: str, *, fused: bool = False) -> Tail:
        module = nn.Identity() if attention == "none" else create_attention(attention, stage.channels)
        if hasattr(module, "fused"):
            module.fused = "on" if fused else "off"
        return Tail(module, stage.channels, fused=fused).to(device)

    for attention in ATTENTIONS:
        yield f"{attention} eager", made(attention)
        yield f"{attention} compiled", torch.compile(made(attention), dynamic=False)  # type: ignore[misc]
    fused = made("cbam", fused=True)
    reason = why_not_fused(fused, z, shortcut)
    if reason is None:
        yield FUSED, fused
    else:
        report.note(f"{FUSED}, {stage.channels} channels: left out, {reason}")


def _report_traffic(stage: Stage, device: torch.device, report: Report) -> None:
    for attention in ATTENTIONS:
        forward, both = counted_traffic(attention, stage, device)
        print(f"{attention + ' compiled':<15} {forward:5.1f} U forward, {both:5.1f} U forward and backward", flush=True)
        report.add(contestant=f"{attention} compiled", forward_units=forward, units=both)


def counted_traffic(attention: str, stage: Stage, device: torch.device, *, batch: int = 4) -> tuple[float, float]:
    """What a compiled tail reads and writes in U, forward and altogether, by inductor's own count of its kernels."""
    from torch._functorch import config as autograd_config
    from torch._inductor import compile_fx, config, metrics

    module = nn.Identity() if attention == "none" else create_attention(attention, stage.channels)
    if hasattr(module, "fused"):
        module.fused = "off"
    shape = (batch, stage.channels, stage.side, stage.side)
    unit_bytes = 2 * torch.Size(shape).numel()
    z, shortcut = (torch.randn(shape, device=device, dtype=torch.bfloat16) for _ in range(2))
    z, shortcut = (x.contiguous(memory_format=torch.channels_last).requires_grad_() for x in (z, shortcut))
    log = compile_fx.inductor_metrics_log
    level, propagate = log.level, log.propagate
    torch._dynamo.reset()
    metrics.reset()
    try:
        log.setLevel(logging.INFO)  # or it does not count
        log.propagate = False
        with config.patch(fx_graph_cache=False), autograd_config.patch(enable_autograd_cache=False):
            compiled = torch.compile(Tail(module, stage.channels).to(device), dynamic=False)
            with torch.autocast(device.type, torch.bfloat16):
                result = compiled(z, shortcut)
            forward = metrics.num_bytes_accessed
            result.backward(torch.ones_like(result))
            return forward / unit_bytes, metrics.num_bytes_accessed / unit_bytes
    finally:
        log.setLevel(level)
        log.propagate = propagate


def why_not_fused(tail: Tail, z: Tensor, shortcut: Tensor) -> str | None:
    """The reason that the fused operator gives against this tail, or None."""
    try:
        from cbam_core.fused import refusal
    except ImportError as error:
        return str(error)
    return refusal(tail.attention, tail.norm, z, shortcut)


def turn(one: Contestant, device: torch.device, *, busy_seconds: float) -> None:
    """Run ITERATIONS of them, and note the mean time of one, on the device and on the host."""
    synchronize(device)
    if device.type != "cuda":
        started = time.perf_counter()
        one.run()
        one.device_ms.append(1e3 * (time.perf_counter() - started))
        one.host_ms.append(one.device_ms[-1])
        return
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda._sleep(int(min(1.5 * busy_seconds, 0.1) * BUSY_CYCLES_PER_SECOND))
    begin.record()
    started = time.perf_counter()
    for _ in range(ITERATIONS):
        one.run()
    one.host_ms.append(1e3 * (time.perf_counter() - started) / ITERATIONS)
    end.record()
    synchronize(device)
    one.device_ms.append(begin.elapsed_time(end) / ITERATIONS)


def kept_bytes(tail: nn.Module, inputs: Iterator[tuple[Tensor, Tensor, Tensor]]) -> int | None:
    """Bytes of GPU memory that are held between forward and backward, the result among them."""
    z, shortcut, gradient = next(inputs)
    if not z.is_cuda:
        return None
    before = torch.cuda.memory_allocated()
    with torch.autocast(z.device.type, torch.bfloat16):
        result = tail(z, shortcut)
    kept = torch.cuda.memory_allocated() - before
    result.backward(gradient)
    _forget_gradients(tail, z, shortcut)
    return kept


def copy_bytes_per_second(device: torch.device, size: int) -> float:
    """The speed of a copy of `size` bytes within the device's memory, what is read and what is written together."""
    source, target = (torch.ones(size, dtype=torch.uint8, device=device) for _ in range(2))
    one = Contestant("copy", partial(target.copy_, source))
    for _ in range(5):
        turn(one, device, busy_seconds=0.001)
    return 2 * size / (statistics.median(one.device_ms) / 1e3)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _inputs(stage: Stage, options: argparse.Namespace, device: torch.device) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Maps z and shortcut, and a gradient of the result, as many of them as no cache holds."""
    shape = (options.batch, stage.channels, stage.side, stage.side)
    sets = 1 if options.tiny else -(-CACHE_BYTES // (2 * torch.Size(shape).numel()))

    def map_of(scale: float) -> Tensor:
        values = scale * torch.randn(shape, device=device)
        return values.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)

    grads = not options.inference
    return [(map_of(1).requires_grad_(grads), map_of(1).requires_grad_(grads), map_of(0.01)) for _ in range(sets)]


def _both_ways(tail: nn.Module, inputs: Iterator[tuple[Tensor, Tensor, Tensor]]) -> None:
    z, shortcut, gradient = next(inputs)
    with torch.autocast(z.device.type, torch.bfloat16):
        result = tail(z, shortcut)
    result.backward(gradient)
    _forget_gradients(tail, z, shortcut)


def _forget_gradients(tail: nn.Module, z: Tensor, shortcut: Tensor) -> None:
    for value in (z, shortcut, *tail.parameters()):
        value.grad = None


@torch.no_grad()
def _forward(tail: nn.Module, inputs: Iterator[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    z, shortcut, _ = next(inputs)
    with torch.autocast(z.device.type, torch.bfloat16):
        result: Tensor = tail(z, shortcut)
    return result


def _ratios(report: Report, times: dict[str, float], kept: dict[str, float], *, inference: bool) -> None:
    """Ratios of the sums over the network; budgets are those of a training."""
    for name, value in times.items():
        print(f"{name:<15} {value:8.2f} ms in all blocks of ResNet-50")
    pairs: list[tuple[str, dict[str, float], str, float | None]] = [
        ("time", times, "cbam compiled", 0.5),
        ("time", times, "se compiled", 1.0),
        ("time", times, "none compiled", None),
        ("time", times, "none eager", None),
        ("time", times, "cbam eager", None),
        ("kept", kept, "cbam compiled", 1.0),
    ]
    for what, values, other, budget in pairs:
        if FUSED in values and other in values:
            ratio = values[FUSED] / values[other]
            report.ratio(f"{what}: {FUSED} / {other}", ratio, at_most=None if inference else budget)
    if "cbam compiled" in times and "none compiled" in times:
        report.ratio("time: cbam compiled / none compiled", times["cbam compiled"] / times["none compiled"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inference", action="store_true", help="eval mode, forward only")
    parser.add_argument("--traffic", action="store_true", help="count what compiled tails read and write, and end")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=9, help="turns of every contestant; the median counts")
    parser.add_argument("--tiny", action="store_true", help="small maps, once, to see that it works")
    names = [*(f"{attention} {how}" for attention in ATTENTIONS for how in ("eager", "compiled")), FUSED]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="measure these alone: %(choices)s")
    add_json_option(parser)
    return parser


if __name__ == "__main__":
    main()
