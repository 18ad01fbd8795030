"""Memory beside the training process itself, per running experiment: the service against Ray Train's TorchTrainer.

Both run one worker on the same Ray head. Counted is the resident memory of all processes of the stack, and of the
driver of TorchTrainer, that train nothing, less what they held before. Budget: at most 1/50.

    python -m benchmarks.memory
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from service.client.client import Client
from service.domain.states import State
from service.stack.parts import environment
from service.stack.processes import members
from service.stack.record import StackRecord
from service.stack.settings import StackSettings
from service.stack.stack import Stack

BUDGET = 1 / 50
TRAINING = ("ray::TrainWorker", "ray::RayTrainWorker")
PATIENCE_SECONDS = 180.0
SETTLE_SECONDS = 10.0
MIB = 2**20
SPEC = {
    "name": "memory",
    "project": "benchmarks",
    "model": {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}},
    "data": {"dataset": "digits", "image_size": 8},
    "train": {"epochs": 100_000, "global_batch_size": 64},
    "checkpoint": {"every_steps": 1000},
}


def main() -> int:
    """Measure and print the ratio; 1 where the budget is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trainer", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().trainer:
        run_trainer()
        return 0
    with tempfile.TemporaryDirectory(prefix="cbam-bench-") as folder:
        stack = Stack(StackSettings(home=Path(folder) / "home", ray_cpus=2, standby_workers=0))
        record = stack.up()
        try:
            with Client(record.url) as client:
                warm = client.submit(SPEC)  # what Ray and the dispatcher load once is not an experiment's
                _until(lambda: warm.refresh().state is State.RUNNING)
                before, workers = beside(record), training(record)
                experiment = client.submit(SPEC)
                _until(lambda: experiment.refresh().state is State.RUNNING and len(training(record)) > len(workers))
                time.sleep(SETTLE_SECONDS)
                ours = beside(record) - before
                for one in (warm, experiment):
                    one.cancel().wait()
            _until(lambda: not training(record))
            theirs = of_trainer(stack, record)
        finally:
            stack.down()
    print(f"beside the training process: cbam-lab {ours / MIB:.0f} MiB, TorchTrainer {theirs / MIB:.0f} MiB")
    print(f"ratio {ours / theirs:.3f} (budget {BUDGET})")
    return int(ours / theirs > BUDGET)


def of_trainer(stack: Stack, record: StackRecord) -> int:
    """Bytes that a running TorchTrainer holds beside its worker."""
    before = beside(record)
    command = [sys.executable, "-m", "benchmarks.memory", "--trainer"]
    with subprocess.Popen(
        command,
        env=environment(stack.settings, record, os.environ),
        cwd=Path(__file__).parents[1],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as driver:
        try:
            _until(lambda: bool(training(record)))
            time.sleep(SETTLE_SECONDS)
            return beside(record) - before + psutil.Process(driver.pid).memory_info().rss
        finally:
            driver.kill()


def run_trainer() -> None:
    """Have TorchTrainer run one worker that only stays."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    with tempfile.TemporaryDirectory() as folder:
        TorchTrainer(
            lambda: time.sleep(3600),
            scaling_config=ScalingConfig(num_workers=1),
            run_config=RunConfig(storage_path=folder),
        ).fit()


def training(record: StackRecord) -> list[psutil.Process]:
    """The processes that train."""
    return [process for process in _all(record) if _title(process).startswith(TRAINING)]


def beside(record: StackRecord) -> int:
    """Bytes held by all processes of the stack that train nothing."""
    total = 0
    for process in _all(record):
        with suppress(psutil.Error):
            total += 0 if _title(process).startswith(TRAINING) else process.memory_info().rss
    return total


def _all(record: StackRecord) -> list[psutil.Process]:
    return [process for one in record.processes.values() for process in members(one, record.stack_id)]


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("it did not come in time")
        time.sleep(0.1)


if __name__ == "__main__":
    raise SystemExit(main())
