"""From the request to the first optimizer step: a cold POST to the service against `python -m workers`, on one spec.

Both write a checkpoint after the first step; the clock stops when its manifest is on disk. The two take turns, on the
same machine, with the same MLflow server. Budget: at most 1.3.

    python -m benchmarks.start [--rounds 5]
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from service.client import Client
from service.stack import Stack
from service.stack_record import StackRecord
from service.stack_settings import StackSettings
from service.states import State
from workers.storage import ExperimentFolder

BUDGET = 1.3
PATIENCE_SECONDS = 120.0
SPEC: dict[str, Any] = {
    "name": "start",
    "project": "benchmarks",
    "model": {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}},
    "data": {"dataset": "digits", "image_size": 16},
    "train": {"epochs": 1000, "global_batch_size": 64},
    "checkpoint": {"every_steps": 1},
}


def main() -> int:
    """Measure in turns and print the ratio; 1 where the budget is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="cbam-bench-") as folder:
        stack = Stack(StackSettings(home=Path(folder) / "home"))
        record = stack.up()
        try:
            times = [(alone(record, Path(folder)), posted(record, stack.settings.storage_root)) for _ in range(rounds)]
        finally:
            stack.down()
    ratios = [service / by_hand for by_hand, service in times]
    for by_hand, service in times:
        print(f"python -m workers {by_hand:6.2f} s    POST {service:6.2f} s    ratio {service / by_hand:.2f}")
    ratio = statistics.median(ratios)
    print(f"POST to the first step, cold / python -m workers: {ratio:.2f} (median of {rounds}; budget {BUDGET})")
    return int(ratio > BUDGET)


def alone(record: StackRecord, folder: Path) -> float:
    """Seconds from starting `python -m workers` to its first step."""
    spec = folder / "spec.yaml"
    spec.write_text(yaml.safe_dump(SPEC))
    storage = Path(tempfile.mkdtemp(dir=folder))
    environment = os.environ | {"MLFLOW_TRACKING_URI": record.mlflow_url}
    command = [sys.executable, "-m", "workers", str(spec), f"--storage={storage}"]
    begin = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder
    ) as process:
        try:
            return _first_step(ExperimentFolder(storage, "start"), begin)
        finally:
            process.kill()


def posted(record: StackRecord, storage: Path) -> float:
    """Seconds from the POST to the first step; the experiment is cancelled and gone afterwards."""
    with Client(record.url) as client:
        begin = time.perf_counter()
        experiment = client.submit(SPEC)
        seconds = _first_step(ExperimentFolder(storage, experiment.id), begin)
        experiment.cancel()
        _wait(lambda: experiment.refresh().state is State.CANCELLED)
    return seconds


def _first_step(folder: ExperimentFolder, begin: float) -> float:
    _wait(lambda: any(folder.checkpoints.glob("step-*/manifest.json")))
    return time.perf_counter() - begin


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the first step did not come")
        time.sleep(0.01)


if __name__ == "__main__":
    raise SystemExit(main())
