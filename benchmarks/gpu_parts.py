"""What `scripts/gpu` runs, in order of value: a table of commands, their times, and what each shows."""

import importlib.util
import os
from dataclasses import dataclass

JSON = "{json}"
"""Stands in a command for the file that its results go to."""
RESNET50 = ("--backbone", "resnet50", "--image-size", "224", "--precision", "bf16", "--channels-last")
SMALL_NETWORK = ("--backbone", "cifar_resnet20", "--image-size", "8", "--batch", "16")


@dataclass(frozen=True, kw_only=True)
class Part:
    """One command of Python's.

    command  what follows `python`
    tiny     the same at sizes that a CPU does in seconds
    seconds  how long it takes on one H100; it begins only where so much of the budget is left
    limit    seconds after which it is killed
    shows    what its result says
    file     the command needs this file
    gpus     the command needs so many GPUs (not where it is tiny)
    """

    name: str
    command: tuple[str, ...]
    tiny: tuple[str, ...]
    seconds: int
    limit: int
    shows: str
    file: str | None = None
    gpus: int = 1


def _pytest(file: str, *options: str) -> tuple[str, ...]:
    """Run a test file with the plugins it needs alone, and without tests/conftest.py, which imports the service."""
    plugins = ("-p", "pytest_timeout", "-p", "_hypothesis_pytestplugin", "-p", "no:cacheprovider")
    return ("-m", "pytest", file, "-v", "--confcutdir=tests/unit", "--hypothesis-profile=ci", *plugins, *options)


def _side_by_side() -> tuple[str, ...]:
    """Options that share tests among processes, which compile kernels at once, on a machine of many cores."""
    cores = os.cpu_count() or 1
    if importlib.util.find_spec("xdist") is None or cores < 8:
        return ()
    return ("-p", "xdist.plugin", "-n", str(cores // 2))


def _tests(name: str, file: str, *options: str, seconds: int, limit: int, shows: str) -> Part:
    command = _pytest(file, f"--timeout={limit}", *options)
    return Part(name=name, command=command, tiny=command, seconds=seconds, limit=limit, shows=shows, file=file)


def _loop(*options: str) -> tuple[str, ...]:
    return ("-m", "benchmarks.loop", "--json", JSON, *options)


def _step(*options: str) -> tuple[str, ...]:
    return ("-m", "benchmarks.step", "--json", JSON, *options)


def _tail(*options: str) -> tuple[str, ...]:
    return ("-m", "benchmarks.tail", "--json", JSON, *options)


LOOP_50 = _loop("--gpu", *RESNET50, "--batch", "128", "--blocks", "10", "--steps", "8")
STEP_50 = _step("--channels", "1", "--classes", "10")  # the network of LOOP_50, which finds it compiled
TINY_LOOP = _loop(*SMALL_NETWORK, "--blocks", "1", "--steps", "1")
TINY_STEP = _step(*SMALL_NETWORK, "--classes", "10", "--rounds", "1", "--steps", "1")

PARTS = (
    _tests(
        "kernels",
        "tests/unit/cbam_core/test_fused_on_gpu.py",
        *_side_by_side(),
        seconds=60,
        limit=120,
        shows="the fused kernels compute what the plain modules do",
    ),
    Part(
        name="tail",
        command=_tail(),
        tiny=_tail("--tiny"),
        seconds=90,
        limit=150,
        shows="norm, attention, shortcut and ReLU, forward and backward: fused against eager and compiled",
        file="benchmarks/tail.py",
    ),
    Part(
        name="step",
        command=STEP_50,
        tiny=TINY_STEP,
        seconds=40,
        limit=80,
        shows="a training step of ResNet-50: without attention, with CBAM, with CBAM fused",
        file="benchmarks/step.py",
    ),
    Part(
        name="loop",
        command=LOOP_50,
        tiny=TINY_LOOP,
        seconds=25,
        limit=70,
        shows="images/s of our loop against a bare one, ResNet-50",
    ),
    Part(
        name="step-compiled",
        command=(*STEP_50, "--compile", "--start-within", "100"),
        tiny=(*TINY_STEP, "--compile"),
        seconds=110,
        limit=190,
        shows="the training step through torch.compile",
        file="benchmarks/step.py",
    ),
    Part(
        name="loop-compiled",
        command=(*LOOP_50, "--compile"),
        tiny=(*TINY_LOOP, "--compile"),
        seconds=80,
        limit=130,
        shows="our loop against a bare one, ResNet-50 through torch.compile",
    ),
    Part(
        name="loop-small",
        command=_loop(
            *("--gpu", "--backbone", "resnet18", "--image-size", "32", "--precision", "bf16", "--channels-last"),
            *("--batch", "128", "--blocks", "10", "--steps", "15"),
        ),
        tiny=TINY_LOOP,
        seconds=25,
        limit=60,
        shows="our loop against a bare one, ResNet-18 at 32×32, where a step is short",
    ),
    _tests(
        "training",
        "tests/unit/workers/train/test_on_gpu.py",
        seconds=50,
        limit=100,
        shows="trainings on a GPU: resumed to the same bits, out of memory by name, compiled",
    ),
    Part(
        name="tail-inference",
        command=_tail("--inference"),
        tiny=_tail("--inference", "--tiny"),
        seconds=50,
        limit=90,
        shows="the same tail in eval mode, forward only",
        file="benchmarks/tail.py",
    ),
    Part(
        name="attention",
        command=(
            *("-m", "benchmarks.attention", "--device", "cuda", "--dtype", "bfloat16", "--compile"),
            *("--modules", "cbam", "se", "--batch", "32", "--rounds", "5"),
        ),
        tiny=("-m", "benchmarks.attention", "--device", "cpu", "--modules", "se", "--batch", "1", "--rounds", "1"),
        seconds=40,
        limit=80,
        shows="our attention modules against timm's, both compiled",
    ),
    Part(
        name="gpus",
        command=("-m", "benchmarks.scaling_gpus", "--json", JSON),
        tiny=("-m", "benchmarks.scaling_gpus", "--json", JSON, "--tiny"),
        seconds=150,
        limit=400,
        shows="how images/s grow with the number of GPUs",
        file="benchmarks/scaling_gpus.py",
        gpus=2,
    ),
)
