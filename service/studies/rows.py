"""What the dispatcher reads and writes of studies. Every write checks that it still leads, and the study's version."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session, defer

from cbam_core.spec import ExperimentSpec
from service.database.engine import Database
from service.database.lease import Leadership
from service.database.models.experiments import Event, Experiment
from service.database.models.studies import Study, Trial
from service.database.study_transitions import change_study_state, note_decision
from service.domain.pruning import PruneScope
from service.domain.states import Desired, Reason, State
from service.domain.studies import (
    PROBE_BLOCK,
    STUDY_TERMINAL,
    BeginTrials,
    EndTrials,
    PlannedTrial,
    PlanSeeds,
    ReopenTrials,
    RetryTrials,
    Step,
    StudyKind,
    StudyMove,
    StudyState,
    WishFor,
)
from service.domain.values import utc_now
from service.errors import StaleMove
from service.studies import trials as trial_rows

Signature = tuple[int, int, int]
GOING_ON = [state for state in StudyState if state not in STUDY_TERMINAL]

# What every tick asks for. Made once: to put such a statement together takes longer than to run it.
_GOING_ON = select(Study.id, Study.version).where(Study.state.in_(GOING_ON)).order_by(Study.created_at, Study.id)
_NEWEST = select(func.max(Event.seq))
_TOUCHED = (
    select(Experiment.study_id)
    .join(Event, Event.experiment_id == Experiment.id)
    .where(Event.seq > bindparam("after"), Event.seq <= bindparam("until"), Experiment.study_id.is_not(None))
    .distinct()
)
_VERSIONS = (
    select(Study.id, func.count(Experiment.id), func.coalesce(func.sum(Experiment.version), 0))
    .outerjoin(Experiment, Experiment.study_id == Study.id)
    .where(Study.state.in_(GOING_ON))
    .group_by(Study.id)
)
_SUM_OF_VERSIONS = (
    select(func.coalesce(func.sum(Experiment.version), 0))
    .join(Trial, Trial.experiment_id == Experiment.id)
    .where(Trial.study_id == bindparam("study"))
)
_READ = (
    select(Trial.study_id, func.count(Trial.observed_at))
    .join(Study, Study.id == Trial.study_id)
    .where(Study.state.in_(GOING_ON))
    .group_by(Trial.study_id)
)


@dataclass(frozen=True)
class TrialState:
    """A trial and where its experiment is; `state` is None where that was deleted."""

    number: int
    block: int
    variant: str
    is_observed: bool
    correct: int | None
    images: int | None
    state: State | None
    desired: Desired
    reason: Reason | None
    message: str
    version: int  # of the experiment; 0 where that was deleted
    ended_at: datetime | None = None
    # of a sweep alone
    params: Mapping[str, Any] | None = None
    informed_by: Sequence[int] = ()  # with CMA-ES alone, which needs it once more
    outcome: str | None = None
    place: int | None = None
    value: float | None = None
    why: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)  # that its experiment reports, until they are written down

    @property
    def is_probe(self) -> bool:
        """Whether it measures cost, and trains nothing."""
        return self.block == PROBE_BLOCK


@dataclass(frozen=True)
class Unobserved:
    """A trial whose experiment has succeeded, and of which it is not known yet what it reached."""

    study: Study
    number: int
    experiment_id: str
    is_pruned: bool  # of all its files
    summary: dict[str, Any]
    metrics: Mapping[str, Any]
    is_probe: bool = False  # of cost


@dataclass(frozen=True)
class Reading:
    """What was read of a run. All is None where it left nothing to read."""

    correct: int | None = None  # images that were classified right
    images: int | None = None  # in all
    classes: int | None = None
    details: dict[str, Any] | None = None  # which of them were right, or what a probe measured, as a row holds it


class StudyRows:
    """The studies, as the leading dispatcher sees them."""

    def __init__(self, database: Database, leadership: Leadership) -> None:
        self.database = database
        self.leadership = leadership

    def going_on(self) -> dict[str, int]:
        """The studies that have not ended, in the order in which they were submitted, with their versions."""
        with self.database.reading() as session:
            return {study_id: version for study_id, version in session.execute(_GOING_ON)}  # noqa: C416

    def newest_event(self) -> int:
        """The largest number of an event; 0 where there is none.

        PostgreSQL gives the numbers before the commits: one may be seen after a larger one, or not at all.
        """
        with self.database.reading() as session:
            return session.scalar(_NEWEST) or 0

    def touched(self, *, after_seq: int, until_seq: int) -> set[str]:
        """The studies whose experiments have events behind a number, up to another one."""
        with self.database.reading() as session:
            return set(session.scalars(_TOUCHED, {"after": after_seq, "until": until_seq}))

    def signatures(self) -> dict[str, Signature]:
        """Of the studies that have not ended, what changes whenever a row of them does: not for every tick."""
        with self.database.reading() as session:
            read: dict[str, int] = {study_id: count for study_id, count in session.execute(_READ)}  # noqa: C416
            return {
                study_id: (count, versions, read.get(study_id, 0))
                for study_id, count, versions in session.execute(_VERSIONS)
            }

    def load(self, study_id: str) -> tuple[Study, list[TrialState]] | None:
        """A study and its trials by number; None where it is gone."""
        query = (
            select(
                Trial.number,
                Trial.block,
                Trial.variant,
                Trial.observed_at,
                Trial.correct,
                Trial.images,
                Experiment.state,
                Experiment.desired,
                Experiment.reason,
                Experiment.message,
                Experiment.version,
                Experiment.ended_at,
                Trial.params,
                Trial.outcome,
                Trial.place,
                Trial.value,
                Trial.why,
            )
            .outerjoin(Experiment, Experiment.id == Trial.experiment_id)
            .where(Trial.study_id == study_id)
            .order_by(Trial.number)
        )
        with self.database.reading() as session:
            study = session.get(Study, study_id)
            if study is None:
                return None
            trials = [_trial_state(row) for row in session.execute(query)]
            if study.kind == StudyKind.SWEEP:
                reported, informed = trial_rows.reported(session, study_id), trial_rows.informed(session, study_id)
                trials = [
                    replace(one, metrics=reported.get(one.number, {}), informed_by=informed.get(one.number, ()))
                    for one in trials
                ]
            return study, trials

    def apply(
        self,
        study: Study,
        trials: Sequence[TrialState],
        steps: Sequence[Step],
        specs: Mapping[PlannedTrial, ExperimentSpec],
    ) -> None:
        """Make all the steps, and write down that they were decided, in one transaction.

        `specs` has what each trial that begins is submitted as, and the control of each that is a probe. Raises
        StaleMove where the study has changed since it was read with these trials, or is to end and one of their
        experiments has changed; NotLeading.
        """
        now_after = max((trial.number for trial in trials), default=-1)
        with self._writing() as session:
            row = session.get(Study, study.id, with_for_update=True)
            if row is None or row.version != study.version:
                raise StaleMove
            ends = any(isinstance(step, StudyMove) and step.to in STUDY_TERMINAL for step in steps)
            if ends and session.scalar(_SUM_OF_VERSIONS, {"study": study.id}) != sum(one.version for one in trials):
                raise StaleMove
            for step in steps:
                self._make(session, row, step, specs, now_after)
                now_after += len(step.trials) if isinstance(step, BeginTrials) else 0

    def _make(
        self, session: Session, row: Study, step: Step, specs: Mapping[PlannedTrial, ExperimentSpec], now_after: int
    ) -> None:
        by = self.leadership.holder
        match step:
            case StudyMove():
                change_study_state(session, row, step, by=by)
                return
            case BeginTrials(trials):
                trial_rows.begin(session, row, trials, specs, now_after)
                for kind, payload in _told(row, trials, now_after):
                    note_decision(session, row, kind, payload, by=by)
            case PlanSeeds(seeds, message):
                row.seeds, row.seeds_chosen = seeds, True
                note_decision(session, row, "seeds", {"seeds": seeds, "message": message}, by=by)
            case WishFor(numbers, desired):
                trial_rows.wish(session, row, numbers, desired)
                note_decision(session, row, "wish", {"trials": list(numbers), "desired": desired}, by=by)
            case EndTrials(ends):
                trial_rows.end(session, row, ends)
                told = [{"number": one.number, "outcome": one.outcome, "value": one.value} for one in ends]
                note_decision(session, row, "ends", {"trials": told}, by=by)
            case ReopenTrials(numbers):
                trial_rows.reopen(session, row, numbers)
                note_decision(session, row, "reopened", {"trials": list(numbers)}, by=by)
            case RetryTrials(retried):
                trial_rows.retry(session, row, retried, specs, by=by)
                note_decision(session, row, "retried", {"trials": [number for number, _ in retried]}, by=by)
        row.version += 1
        session.flush()

    def unobserved(self, *, besides: Sequence[str] = (), limit: int = 100) -> list[Unobserved]:
        """Trials of comparisons that go on whose experiments have succeeded and have not been read, without some."""
        query = (
            select(
                Study.id,
                Trial.number,
                Trial.block,
                Experiment.id,
                Experiment.pruned,
                Experiment.summary,
                Experiment.progress,
            )
            .join(Trial, Trial.study_id == Study.id)
            .join(Experiment, Experiment.id == Trial.experiment_id)
            .where(Study.kind != StudyKind.SWEEP)  # whose trials are ranked by what their rows say
            .where(Study.state.in_(GOING_ON), Experiment.state == State.SUCCEEDED, Trial.observed_at.is_(None))
            .where(Experiment.id.not_in(besides))
            .order_by(Study.created_at, Trial.number)
            .limit(limit)
        )
        with self.database.reading() as session:
            found = [tuple(row) for row in session.execute(query)]
            chosen = (
                select(Study).where(Study.id.in_({row[0] for row in found})).options(defer(Study.specs, raiseload=True))
            )
            studies = {study.id: study for study in session.scalars(chosen)}
        return [
            Unobserved(
                studies[study_id],
                number,
                experiment_id,
                pruned == PruneScope.ALL,
                summary,
                progress.get("metrics") or {},
                is_probe=block == PROBE_BLOCK,
            )
            for study_id, number, block, experiment_id, pruned, summary, progress in found
            if study_id in studies
        ]

    def note_reading(self, of: Unobserved, reading: Reading) -> None:
        """Write down what a run reached; once.

        It locks the study before its trial, as a deletion does: PostgreSQL ends one of two that go different ways.
        """
        with self._writing() as session:
            session.execute(select(Study.id).where(Study.id == of.study.id).with_for_update())
            session.execute(
                update(Trial)
                .where(Trial.study_id == of.study.id, Trial.number == of.number, Trial.observed_at.is_(None))
                .values(
                    observed_at=utc_now(),
                    correct=reading.correct,
                    images=reading.images,
                    observed=reading.details,
                )
            )
            if reading.classes is not None:
                first = update(Study).where(Study.id == of.study.id, Study.classes.is_(None))
                session.execute(first.values(classes=reading.classes))

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self.database.writing() as session:
            self.leadership.guard(session)
            yield session


def _trial_state(row: Any) -> TrialState:
    return TrialState(
        number=row.number,
        block=row.block,
        variant=row.variant,
        is_observed=row.observed_at is not None,
        correct=row.correct,
        images=row.images,
        state=None if row.state is None else State(row.state),
        desired=Desired(row.desired or Desired.RUN),
        reason=None if row.reason is None else Reason(row.reason),
        message=row.message or "",
        version=row.version or 0,
        ended_at=row.ended_at,
        params=row.params,
        outcome=row.outcome,
        place=row.place,
        value=row.value,
        why=row.why or "",
    )


def _told(row: Study, trials: Sequence[PlannedTrial], now_after: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is written down of trials that begin: the kind of each decision, and what it says."""
    if row.kind == StudyKind.SWEEP:
        told = [
            {"number": now_after + 1 + place, "params": json.loads(trial.params or "{}"), "refused": trial.refused}
            for place, trial in enumerate(trials)
        ]
        yield "trials", {"trials": told}
        return
    if block := [trial for trial in trials if trial.against is None]:
        yield "trials", {"block": block[0].block, "variants": [trial.variant for trial in block]}
    for trial in trials:
        if trial.against is not None:
            yield "probe", {"variant": trial.variant, "against": trial.against}
