"""Rows of comparisons made by hand, with the numbers that a test wants."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from cbam_core.spec import ExperimentSpec
from service.comparisons.observation import Observation
from service.comparisons.result import result_of
from service.comparisons.submission import base_spec, trial_spec, variant_specs
from service.database.models.experiments import Experiment
from service.database.models.studies import Study, Trial
from service.domain.states import Reason, State
from service.domain.studies import StudyState, seed_of
from service.schemas.comparison_results import ResultView
from service.schemas.comparisons import ComparisonSpec
from service.studies.store import TrialRow
from tests.support.specs import spec_dict

IMAGES, CLASSES = 360, 10
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUMMARY = {
    "parameters": 272_474,
    "macs": 40_000_000,
    "images_per_second": 1000.0,
    "peak_memory_bytes": 2**28,
    "classes": CLASSES,
    "split": "1293 train, 144 val, 360 test",
    "device": "cpu (AMD EPYC)",
    "world_size": 1,
    "torch": "2.9.0",
    "code": "0.2.0-1f0c2d3e4a5b",
    "data": "00c0ffee00c0ffee",
}
PARAMETERS = {"plain": 272_474, "se": 275_000, "cbam": 280_000}
Change = Callable[[list[TrialRow]], object]


def comparison_spec(**changes: object) -> ComparisonSpec:
    fields = {
        "name": "does cbam help",
        "base": spec_dict(),
        "variants": {
            "plain": {"model.attention": "none"},
            "se": {"model.attention": {"type": "se"}},
            "cbam": {"model.attention": {"type": "cbam"}},
        },
        "seeds": 10,
        "probe": False,
    }
    return ComparisonSpec.model_validate(fields | changes)


def study_of(spec: ComparisonSpec | None = None, **changes: object) -> Study:
    """A comparison that has ended well."""
    spec = spec or comparison_spec()
    fields = {
        "id": "c1",
        "kind": "comparison",
        "name": spec.name,
        "project": "tests",
        "description": spec.description,
        "owner": "local",
        "spec": spec.model_dump(mode="json"),
        "specs": {name: each.model_dump(mode="json") for name, each in variant_specs(spec, base_spec(spec)).items()},
        "seed": 7,
        "seeds": spec.first_seeds,
        "seeds_chosen": False,
        "seeds_added": False,
        "classes": CLASSES,
        "state": StudyState.SUCCEEDED,
        "desired": "run",
        "message": "",
        "created_at": NOW,
    }
    return Study(**fields | changes)


def rows_of(study: Study, right: dict[str, Sequence[int]], images: int = IMAGES, *, extra: int = 0) -> list[TrialRow]:
    """A finished run for each number of `right`, by variant and seed, the images that are right drawn from the seed."""
    seeds = len(next(iter(right.values())))
    rows = []
    for block in range(seeds):
        order = np.random.default_rng(block + 1000 * extra).permutation(images)
        for variant, counts in right.items():
            said = np.zeros(images, dtype=bool)
            said[order[: counts[block]]] = True
            rows.append(row_of(study, variant, block, said, number=len(rows) + 1))
    return rows


def row_of(study: Study, variant: str, block: int, right: np.ndarray, *, number: int) -> TrialRow:
    """A finished run that had these images right."""
    seed = seed_of(study.seed, block)
    base = ExperimentSpec.model_validate(study.specs[variant], strict=False)
    spec = trial_spec(base, study=study.name, variant=variant, block=block, seed=seed)
    experiment = Experiment(
        id=f"e{number}",
        name=spec.name,
        spec=spec.model_dump(mode="json"),
        semantics=2,
        state=State.SUCCEEDED,
        desired="run",
        reason=None,
        message="",
        summary=SUMMARY | {"parameters": PARAMETERS.get(variant, 300_000)},
    )
    trial = Trial(
        study_id=study.id,
        number=number,
        experiment_id=experiment.id,
        variant=variant,
        block=block,
        seed=seed,
        observed_at=NOW,
        correct=int(right.sum()),
        images=len(right),
        observed=Observation(right, None, CLASSES, "0123456789abcdef").to_json(),
    )
    return TrialRow(trial, experiment)


def steady(seeds: int = 10, *, plain: int = 300, se: int = 302, cbam: int = 309) -> dict[str, list[int]]:
    """Numbers of right images that waver a little from seed to seed, alike for all variants and a little apart."""
    waver = [(3 * block) % 7 for block in range(seeds)]
    apart = [(2 * block) % 3 for block in range(seeds)]
    return {
        "plain": [plain + w for w in waver],
        "se": [se + w - a for w, a in zip(waver, apart, strict=True)],
        "cbam": [cbam + w + a for w, a in zip(waver, apart, strict=True)],
    }


def change(row: TrialRow, **fields: Any) -> TrialRow:
    """Set these of the experiment's, and of its summary."""
    experiment = row.experiment
    assert experiment is not None
    for name, value in fields.items():
        if hasattr(Experiment, name):
            setattr(experiment, name, value)
        else:
            experiment.summary = experiment.summary | {name: value}
    return row


def unfinish(row: TrialRow, state: State, reason: Reason | None = None) -> TrialRow:
    """A run that is not over, or ended without a number."""
    row.trial.observed_at = row.trial.correct = row.trial.images = row.trial.observed = None
    return change(row, state=state, reason=reason, summary={})


def result(study: Study | None = None, right: dict[str, Sequence[int]] | None = None) -> ResultView:
    """Of a comparison of three variants over ten seeds."""
    study = study or study_of()
    return result_of(study, rows_of(study, right or steady()))
