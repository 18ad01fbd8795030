"""The curves of a variant over its seeds: mean, lowest and highest at the end of each epoch."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.experiments.metric_history import Curve, read_curves

AT_EPOCHS = ("val/top1", "val/loss")
BETWEEN = "train/loss"  # measured every few steps
_ALL_POINTS = 10**9


@dataclass(frozen=True)
class Point:
    """A step at which every seed has a value."""

    step: int
    mean: float
    low: float
    high: float


def read_bands(storage: Path, experiment_ids: Sequence[str]) -> dict[str, list[Point]]:
    """The bands of these runs by the names of the metrics, from their journals. Raises OSError."""
    names = (*AT_EPOCHS, BETWEEN)
    runs = [
        {curve.name: curve for curve in read_curves(storage, one, names=names, most_points=_ALL_POINTS)}
        for one in experiment_ids
    ]
    return bands(runs)


def bands(runs: Sequence[Mapping[str, Curve]]) -> dict[str, list[Point]]:
    """The band of each metric over runs that differ in the seed alone.

    A step counts where every run has a finite value there: the curves of a variant end where one of its runs diverged,
    as the mean of those that are left would show another variant.
    """
    by_epoch = [_by_epoch(run) for run in runs]
    names = sorted({name for run in by_epoch for name in run})
    found = {name: _band([run.get(name, {}) for run in by_epoch]) for name in names}
    return {name: points for name, points in found.items() if points}


def _by_epoch(run: Mapping[str, Curve]) -> dict[str, dict[int, float]]:
    """The values at the ends of epochs, by step; of the loss in training the last one within the epoch."""
    values = {name: _finite(curve) for name, curve in run.items() if name in AT_EPOCHS}
    ends = sorted({step for at in values.values() for step in at})
    if BETWEEN in run and ends:
        values[BETWEEN] = _last_of_each(_finite(run[BETWEEN]), ends)
    return values


def _finite(curve: Curve) -> dict[int, float]:
    return {step: value for step, value in zip(curve.steps, curve.values, strict=True) if value is not None}


def _last_of_each(values: Mapping[int, float], ends: Sequence[int]) -> dict[int, float]:
    steps = sorted(values)
    found = {}
    for begin, end in zip([-1, *ends[:-1]], ends, strict=True):
        place = bisect_right(steps, end)
        if place and steps[place - 1] > begin:
            found[end] = values[steps[place - 1]]
    return found


def _band(runs: Sequence[Mapping[int, float]]) -> list[Point]:
    steps = set(runs[0]).intersection(*runs[1:])
    return [
        Point(step, sum(values) / len(values), min(values), max(values))
        for step in sorted(steps)
        for values in [[run[step] for run in runs]]
    ]
