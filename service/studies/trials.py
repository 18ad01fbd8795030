"""Writes the trials of studies and what belongs to them, in a transaction that is open and has locked the study."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cbam_core.spec import ExperimentSpec
from service.database.models.experiments import Experiment
from service.database.models.studies import Study, Trial
from service.domain.states import TERMINAL, Desired, State
from service.domain.studies import PlannedTrial, TrialEnd, TrialOutcome, name_of
from service.domain.values import new_id, utc_now
from service.experiments.insertion import insert_experiment
from service.experiments.store import requeue_in


def begin(
    session: Session,
    row: Study,
    trials: Sequence[PlannedTrial],
    specs: Mapping[PlannedTrial, ExperimentSpec],
    now_after: int,
) -> None:
    """Store these as trials with the numbers behind `now_after`, and submit their experiments in this order.

    A trial whose spec is refused has no experiment: its id names none.
    """
    now = utc_now()
    for place, trial in enumerate(trials):
        queued_at = now + timedelta(microseconds=place)  # the queue keeps the order of the block
        experiment_id = new_id() if trial.refused else _submit(session, row, trial, specs, queued_at)
        session.add(
            Trial(
                study_id=row.id,
                number=now_after + 1 + place,
                experiment_id=experiment_id,
                variant=trial.variant,
                block=trial.block,
                seed=trial.seed,
                params=None if trial.params is None else json.loads(trial.params),
                params_hash=None if trial.params is None else hash_of(trial.params),
                informed_by=None if trial.params is None else list(trial.informed_by),
                outcome=TrialOutcome.SPEC_INVALID if trial.refused else None,
                why=trial.refused,
            )
        )


def _submit(
    session: Session,
    row: Study,
    trial: PlannedTrial,
    specs: Mapping[PlannedTrial, ExperimentSpec],
    queued_at: datetime,
) -> str:
    what = name_of(trial.variant, trial.block) if trial.params is None else f"trial {trial.block}"
    experiment = insert_experiment(
        session,
        specs[trial],
        row.owner,
        study_id=row.id,
        probed_against=None if trial.control is None else specs[trial.control],
        queued_at=queued_at,
        message=f"{row.kind} {row.name}: {what}",
    )
    return experiment.id


def end(session: Session, row: Study, ends: Sequence[TrialEnd]) -> None:
    """Write down what these ended with."""
    for one in ends:
        written = {"outcome": one.outcome, "place": one.place, "value": one.value, "why": one.message or None}
        session.execute(update(Trial).where(Trial.study_id == row.id, Trial.number == one.number).values(**written))


def reopen(session: Session, row: Study, numbers: Sequence[int]) -> None:
    """Forget what these had ended with."""
    session.execute(
        update(Trial)
        .where(Trial.study_id == row.id, Trial.number.in_(numbers))
        .values(outcome=None, place=None, value=None, why=None)
    )


def retry(
    session: Session,
    row: Study,
    trials: Sequence[tuple[int, PlannedTrial]],
    specs: Mapping[PlannedTrial, ExperimentSpec],
    *,
    by: str,
) -> None:
    """Queue the experiments of these once more; where that was deleted, a new one in its place."""
    for number, planned in trials:
        trial = session.get_one(Trial, (row.id, number))
        experiment = session.get(Experiment, trial.experiment_id, with_for_update=True)
        if experiment is None:
            trial.experiment_id = _submit(session, row, planned, specs, utc_now())
        elif experiment.pruned is None and experiment.state in (State.FAILED, State.CANCELLED):
            requeue_in(session, experiment, by=by)
        trial.outcome = trial.place = trial.value = trial.why = None  # what was pruned meanwhile ends as it had


def reported(session: Session, study_id: str) -> dict[int, Mapping[str, Any]]:
    """The last metrics of those experiments that succeeded, and of which that is not written down yet, by trial."""
    query = (
        select(Trial.number, Experiment.progress)
        .join(Experiment, Experiment.id == Trial.experiment_id)
        .where(Trial.study_id == study_id, Trial.place.is_(None), Experiment.state == State.SUCCEEDED)
    )
    return {number: progress.get("metrics") or {} for number, progress in session.execute(query)}


def informed(session: Session, study_id: str) -> dict[int, Sequence[int]]:
    """By which trials each was informed, where that is needed again; all of them would be n² numbers."""
    query = select(Trial.number, Trial.informed_by).where(Trial.study_id == study_id, Trial.variant == "cmaes")
    return {number: numbers or () for number, numbers in session.execute(query)}


def hash_of(params: str) -> str:
    """A short name of proposed values, which are JSON with sorted keys."""
    return hashlib.sha256(params.encode()).hexdigest()


def wish(session: Session, row: Study, numbers: Sequence[int], desired: Desired) -> None:
    """Want this of those of the experiments that have not ended; a wish to cancel stands."""
    ids = select(Trial.experiment_id).where(Trial.study_id == row.id, Trial.number.in_(numbers))
    session.execute(
        update(Experiment)
        .where(Experiment.id.in_(ids), Experiment.state.not_in(TERMINAL), Experiment.desired != Desired.CANCEL)
        .values(desired=desired, version=Experiment.version + 1)
        .execution_options(synchronize_session=False)
    )
