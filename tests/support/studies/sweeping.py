"""A sweep that the test submits; its trials train nothing and report a value that their rate and attention say."""

import math
from collections.abc import Callable
from typing import Any

from service.cluster.base import Launch
from service.database.models.studies import Study
from service.schemas.sweeps import SweepSpec
from service.studies.store import StudyStore
from service.sweeps.actions import new_sweep
from tests.support.specs import spec_dict

SEARCH = {
    "train.optimizer.lr": {"log": [0.01, 1.0]},
    "model.attention.type": {"choice": ["none", "se", "cbam"]},
    "model.attention.reduction": {"int": [2, 8], "log": True, "when": {"model.attention.type": ["se", "cbam"]}},
}
GRID = {
    "train.optimizer.lr": {"log": [0.01, 1.0], "points": 4},
    "model.attention.type": {"choice": ["none", "se", "cbam"]},
    "train.optimizer.momentum": {"choice": [0.0, 0.9]},
}


def sweep_dict(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": "rate and attention",
        "base": spec_dict(),
        "search": SEARCH,
        "method": {"type": "random", "seed": 7},
        "limits": {"trials": 6, "concurrent": 2},
    }
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def submitted(studies: StudyStore, *, key: str | None = None, **changes: Any) -> Study:
    sweep = SweepSpec.model_validate(sweep_dict(**changes))
    study, _ = studies.submit(
        new_sweep(sweep), owner="local", key=key, body_hash=sweep.model_dump_json(), quota_disk=None
    )
    return study


def value_of(launch: Launch) -> float:
    """Best at a rate of 0.3 with CBAM."""
    spec = launch.spec
    attention = {"none": 0.0, "se": 0.05, "cbam": 0.1}[spec.model.attention.type]
    return 0.8 + attention - 0.1 * abs(math.log10(spec.train.optimizer.lr / 0.3))


def report(value: Callable[[Launch], float] = value_of, test: float = 0.5) -> Callable[[Launch], dict[str, float]]:
    """The hook `metrics` of the cluster in memory."""
    return lambda launch: {"val/top1": value(launch), "test/top1": test}
