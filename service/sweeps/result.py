"""What a sweep has found so far: its trials as the API shows them, in order and by rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from service.database.engine import Database
from service.database.models.experiments import Experiment
from service.database.models.studies import Study, Trial
from service.domain.spec_patch import kinds_first
from service.domain.states import State
from service.domain.studies import StudyState, TrialOutcome
from service.schemas.sweep_views import RankedTrialView, SweepResult, SweepTrialView
from service.sweeps.decide import GIVEN_UP
from service.sweeps.stored import method_of, metric_of, mode_of, shown_limits

BEST_OF_MANY = (
    "the best of {} trials is partly luck, and its value on val too high therefore: train it with other seeds, and "
    "measure that on test, with `cbam compare`"
)


@dataclass(frozen=True)
class ListedTrial:
    """As much of a trial as is shown; `state` is None where its experiment is not there."""

    number: int
    params: dict[str, Any] | None
    experiment_id: str
    outcome: str | None
    value: float | None
    why: str | None
    state: str | None
    message: str | None
    informed_by: list[int] | None


def trial_views(database: Database, study_id: str, *, first: int, limit: int) -> list[SweepTrialView]:
    """The trials from a number on, in the order in which they were proposed."""
    found = _listed(database, study_id, first=first, limit=limit)
    return [SweepTrialView(**_shown(trial).model_dump(), informed_by=trial.informed_by or []) for trial in found]


def result_of(database: Database, study: Study) -> SweepResult:
    """Every trial by rank, and the best one."""
    mode = mode_of(study.spec)
    trials = sorted(
        (_shown(trial) for trial in _listed(database, study.id)), key=lambda trial: _rank(trial, mode == "max")
    )
    best = trials[0] if trials and trials[0].value is not None else None
    known = sum(trial.value is not None for trial in trials)
    search = study.spec.get("search") if isinstance(study.spec, dict) else None
    return SweepResult(
        study_id=study.id,
        name=study.name,
        state=StudyState(study.state),
        message=study.message,
        method=method_of(study.spec),
        metric=metric_of(study.spec),
        mode=mode,
        limits=shown_limits(study),
        best=best,
        fields=tuple(search) if isinstance(search, dict) else (),
        trials=trials,
        warnings=[BEST_OF_MANY.format(known)] if known > 1 else [],
    )


def _listed(database: Database, study_id: str, *, first: int = 0, limit: int | None = None) -> Sequence[ListedTrial]:
    columns = (Trial.number, Trial.params, Trial.experiment_id, Trial.outcome, Trial.value, Trial.why)
    ranked = (*columns, Experiment.state, Experiment.message)
    query = (
        (select(*ranked) if limit is None else select(*ranked, Trial.informed_by))
        .outerjoin(Experiment, Experiment.id == Trial.experiment_id)
        .where(Trial.study_id == study_id, Trial.number >= first)
        .order_by(Trial.number)
        .limit(limit)
    )
    with database.reading() as session:
        return [ListedTrial(*row, *([None] if limit is None else [])) for row in session.execute(query)]


def _shown(trial: ListedTrial) -> RankedTrialView:
    has_experiment = trial.outcome != TrialOutcome.SPEC_INVALID
    return RankedTrialView(
        number=trial.number,
        params=kinds_first(trial.params or {}),
        experiment_id=trial.experiment_id if has_experiment else None,
        state=None if trial.state is None else State(trial.state),
        outcome=trial.outcome,
        value=trial.value,
        message=trial.why or trial.message or "",
    )


def _rank(trial: RankedTrialView, largest: bool) -> tuple[int, float, int]:
    """The best first, of several the one that was proposed first; then failed, open, and given up ones."""
    if trial.value is not None:
        return 0, -trial.value if largest else trial.value, trial.number
    is_open = trial.outcome in (None, TrialOutcome.RETRY)
    return (3 if trial.outcome in GIVEN_UP else 2 if is_open else 1), 0.0, trial.number
