"""What one finished run reached, as a small file: enough for every number that is told, without the run itself."""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.evidence.plan import Plan, PlannedRun
from cbam_core.spec import ExperimentSpec
from service.comparisons.observation import read_observation
from service.domain.states import Reason, State
from service.schemas.experiments import ExperimentView
from workers.protocol.storage import write_atomically

KEPT = (
    *("parameters", "macs", "classes", "train_images", "val_images", "test_images", "split", "data"),
    *("device", "world_size", "torch", "code", "images_per_second", "peak_memory_bytes", "wall_seconds"),
)
"""What is kept of a run's summary: costs, and what must be the same for all."""


class UnfitRecord(Exception):
    """A file that is not of the run after which it is named: made with another spec, or damaged."""


def _whole(fields: dict[str, Any]) -> ExperimentSpec | None:
    """The spec with the fields that it lacks, being older, as they are by default; None for what is none any more."""
    try:
        return ExperimentSpec.model_validate(fields, strict=False)
    except ValidationError:
        return None


class Record(BaseModel):
    """A run that has ended with a result. `observed` says which images were right; nothing where it diverged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    variant: str
    seed: int
    state: State
    reason: Reason | None
    semantics: int
    metrics: dict[str, float]
    summary: dict[str, Any]
    correct: int | None = None
    images: int | None = None
    classes: int | None = None
    observed: dict[str, Any] | None = None
    spec: dict[str, Any]

    @classmethod
    def of(cls, run: PlannedRun, view: ExperimentView, predictions: Path | None, *, metric: str) -> Self:
        """What a run reached, by its predictions (None of one that diverged). Raises NoPredictions."""
        seen = None if predictions is None else read_observation(predictions, metric)
        return cls(
            variant=run.variant,
            seed=run.seed,
            state=view.state,
            reason=view.reason,
            semantics=view.semantics,
            metrics=view.metrics,
            summary={name: view.summary[name] for name in KEPT if name in view.summary},
            correct=None if seen is None else seen.correct,
            images=None if seen is None else len(seen.right),
            classes=None if seen is None else seen.classes,
            observed=None if seen is None else seen.to_json(),
            spec=run.spec.model_dump(mode="json"),
        )


def write_record(folder: Path, run: PlannedRun, record: Record) -> None:
    """Keep it: the whole file, or none."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / run.file, (record.model_dump_json(indent=1) + "\n").encode())


def read_records(folder: Path, plan: Plan) -> dict[str, Record]:
    """The runs of the plan that are there, by the names of their files. Raises UnfitRecord."""
    found = {}
    for run in plan.runs:
        path = folder / run.file
        if not path.exists():
            continue
        try:
            record = Record.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise UnfitRecord(f"{path}: damaged ({error.error_count()} errors); remove it to train it again") from error
        same = (record.variant, record.seed) == (run.variant, run.seed) and _whole(record.spec) == run.spec
        if not same:
            raise UnfitRecord(f"{path}: of another spec than the comparison asks for now; remove all to begin anew")
        found[run.file] = record
    return found
