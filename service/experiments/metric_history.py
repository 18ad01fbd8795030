"""The history of an experiment's metrics, read from the journal on shared storage: it is there when MLflow is not."""

import logging
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from workers.protocol.storage import ExperimentFolder
from workers.tracking.journal import read_record

log = logging.getLogger(__name__)
_OTHERS = (b'{"params"', b'{"tags"', b'{"artifact"')  # how most lines without values begin: they need not be parsed


@dataclass
class Curve:
    """The values of one metric, in the order of their steps; None where a value was not finite."""

    name: str
    steps: list[int] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)
    times: list[int] = field(default_factory=list)  # Unix time in milliseconds

    def thinned(self, most: int) -> "Curve":
        """At most so many points of it, evenly chosen, the first and the last among them."""
        count = len(self.steps)
        if count <= most:
            return self
        chosen = [round(index * (count - 1) / max(1, most - 1)) for index in range(most)] if most > 1 else [count - 1]
        return Curve(
            self.name,
            [self.steps[index] for index in chosen],
            [self.values[index] for index in chosen],
            [self.times[index] for index in chosen],
        )


def read_curves(
    storage: Path, experiment_id: str, *, names: Collection[str] = (), after_step: int = -1, most_points: int
) -> list[Curve]:
    """The curves of these names (all, where there are none), sorted by name, of the steps behind `after_step`."""
    curves: dict[str, Curve] = {}
    for record in _records(ExperimentFolder(storage, experiment_id).journal):
        if record["step"] <= after_step:
            continue
        for name, value in record["metrics"].items():
            if not names or name in names:
                curve = curves.setdefault(name, Curve(name))
                curve.steps.append(record["step"])
                curve.values.append(value if math.isfinite(value) else None)
                curve.times.append(record["time"])
    return [curves[name].thinned(most_points) for name in sorted(curves)]


def _records(journal: Path) -> Iterator[Mapping[str, Any]]:
    """The records with values; a last line that is still being written does not count, nor does what is no record."""
    try:
        file = journal.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            if line.startswith(_OTHERS):
                continue
            record = read_record(line)
            if record is None:
                _tell_of(journal)
            elif "metrics" in record:
                yield record


@lru_cache(maxsize=1024)
def _tell_of(journal: Path) -> None:
    """Say it once of a journal, not at every look at its curves."""
    log.warning("%s has lines that are no records, as after the loss of a machine; they are passed over", journal)
