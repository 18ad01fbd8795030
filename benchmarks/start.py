"""From the request to the first optimizer step: a POST to the service against `python -m workers`, on one spec.

All write a checkpoint after the first step; the clock stops when its manifest is on disk. They take turns, on the same
machine, with the same MLflow server. A cold POST finds no worker (budget: at most 1.3), a warm one finds the worker of
an experiment that has just ended well (at most 0.25), the first one of a service that was just started finds a worker
on standby.

    python -m benchmarks.start [--rounds 5]
"""

import argparse
import contextlib
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

from benchmarks.sweep import wait_for_quiet
from service.client.client import Client
from service.domain.states import State
from service.stack.record import StackRecord
from service.stack.settings import StackSettings
from service.stack.stack import Stack
from workers.protocol.storage import ExperimentFolder

COLD_BUDGET, WARM_BUDGET = 1.3, 0.25
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
    """Measure in turns and print the ratios; 1 where a budget is broken."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="cbam-bench-") as folder, contextlib.ExitStack() as ends:
        bare, ready = (
            Stack(StackSettings(home=Path(folder) / str(workers), standby_workers=workers)) for workers in (0, 1)
        )
        records = {}
        for stack in (bare, ready):
            ends.callback(stack.down)
            records[stack] = stack.up()
        times = []
        for _ in range(rounds):
            by_hand = alone(records[bare], Path(folder))
            cold, warm = (posted(bare, records[bare], warm=warm) for warm in (False, True))
            times.append((by_hand, cold, warm, posted(ready, records[ready])))
    for by_hand, cold, warm, stood_by in times:
        print(
            f"python -m workers {by_hand:5.2f} s   POST: cold {cold:5.2f} s   warm {warm:5.2f} s   "
            f"a worker on standby {stood_by:5.2f} s"
        )
    cold_ratio, warm_ratio, stood_by_ratio = (
        statistics.median(row[number] / row[0] for row in times) for number in (1, 2, 3)
    )
    print(f"cold POST / python -m workers: {cold_ratio:.2f} (median of {rounds}; budget {COLD_BUDGET})")
    print(f"warm POST / python -m workers: {warm_ratio:.2f} (median of {rounds}; budget {WARM_BUDGET})")
    print(f"POST to a worker on standby / python -m workers: {stood_by_ratio:.2f} (median of {rounds})")
    return int(cold_ratio > COLD_BUDGET or warm_ratio > WARM_BUDGET)


def alone(record: StackRecord, folder: Path) -> float:
    """Seconds from starting `python -m workers` to its first step."""
    wait_for_quiet()
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


def posted(stack: Stack, record: StackRecord, *, warm: bool = False) -> float:
    """Seconds from the POST to the first step; the experiment is cancelled, and its worker gone, afterwards."""
    storage = stack.settings.storage_root
    wait_for_quiet()
    with Client(record.url) as client:
        if warm:
            client.submit(SPEC | {"train": SPEC["train"] | {"epochs": 1}, "checkpoint": {}}).wait()
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
