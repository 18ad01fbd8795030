"""A training small enough to run whole in a test: digits at 8×8, a 20-layer network, 5 steps per epoch."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cbam_core.spec import ExperimentSpec
from workers.protocol.assignment import Assignment
from workers.protocol.outcome import Outcome
from workers.protocol.progress import Progress
from workers.protocol.stop import StopSignal


@pytest.fixture(autouse=True)
def one_thread():
    """Same bits on every machine, and no fight over its cores."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


SpecMaker = Callable[..., ExperimentSpec]


@pytest.fixture
def tiny_spec() -> SpecMaker:
    """A spec that trains in a second; keyword arguments replace its parts."""

    def make(**parts: Any) -> ExperimentSpec:
        train = {"epochs": 2, "global_batch_size": 256, "deterministic": True} | parts.pop("train", {})
        data = {"dataset": "digits", "image_size": 8} | parts.pop("data", {})
        model = {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}} | parts.pop("model", {})
        return ExperimentSpec.model_validate({"name": "tiny", "model": model, "data": data, "train": train, **parts})

    return make


@pytest.fixture
def assign(tmp_path: Path) -> Callable[..., Assignment]:
    """An assignment for one rank, on storage of its own."""

    def make(spec: ExperimentSpec, **fields: Any) -> Assignment:
        values = {"experiment_id": "e1", "attempt": 1, "token": "t1", "storage": str(tmp_path)} | fields
        return Assignment(spec=spec, **values)

    return make


@pytest.fixture
def train() -> Callable[..., tuple[Outcome, list[Progress]]]:
    """Run an assignment to its end in this thread; `stop_when(progress)` may say "pause" or "cancel"."""
    from workers.attempt import run

    def go(assignment: Assignment, *, stop_when: Callable[[Progress], Any] | None = None):
        stop, seen = StopSignal(), []

        def watch(progress: Progress) -> None:
            seen.append(progress)
            if stop_when and (mode := stop_when(progress)):
                stop.request(mode)

        return run(assignment, stop=stop, report=watch), seen

    return go
