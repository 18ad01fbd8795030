"""Queries for the API and the actions behind it: studies, their trials and what was decided of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, defer

from service.database.disk_usage import require_room
from service.database.engine import Database
from service.database.models.experiments import Experiment
from service.database.models.studies import Decision, Study, StudyRun, Trial
from service.database.study_transitions import change_study_state, note_decision
from service.domain.states import Desired, State
from service.domain.studies import (
    STUDY_TERMINAL,
    STUDY_WISHES,
    StudyKind,
    StudyMove,
    StudyState,
    study_actions,
)
from service.errors import (
    IllegalStudyAction,
    InvalidField,
    NothingToRetry,
    StudyNotFound,
    VersionConflict,
)
from service.experiments.keys import forget_old_keys, key_of, submitted_with
from service.studies.children import delete_some, have_results, mark_for_retry, read_again, requeue_failed, why_none
from service.studies.new import NewStudy


@dataclass(frozen=True)
class TrialRow:
    """A trial and its experiment, None where that was deleted."""

    trial: Trial
    experiment: Experiment | None


@dataclass(frozen=True)
class ListedTrial:
    """As much of a trial as a list shows; `state` is that of its experiment, None where that was deleted."""

    number: int
    variant: str
    block: int
    seed: int
    experiment_id: str
    correct: int | None
    images: int | None
    state: State | None


@dataclass(frozen=True)
class StudySnapshot:
    """As much of a study as those need who watch it; `counts` are of its experiments by state, `read` of its runs."""

    id: str
    version: int
    state: StudyState
    reason: str | None
    message: str
    seeds: int
    counts: Mapping[State | None, int]
    read: int

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen, unless a user asks for more."""
        return self.state in STUDY_TERMINAL


class StudyStore:
    """The studies, as the API sees them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def submit(
        self, new: NewStudy, *, owner: str, key: str | None, body_hash: str, quota_disk: int | None
    ) -> tuple[Study, bool]:
        """Store a study as ACTIVE, or give the one that this owner submitted with the key; and whether it is new.

        Raises IdempotencyConflict where the key came with another body, StudyDeleted, DiskQuotaExceeded.
        """
        row = new.row(owner)
        try:
            with self.database.writing_alone(f"study key {owner} {key}") as session:
                if key is not None:
                    forget_old_keys(session)
                    if (known := submitted_with(session, key, Study, owner=owner, body_hash=body_hash)) is not None:
                        return known, False
                require_room(session, owner, quota_disk)
                session.add(row)
                session.flush()
                session.add_all(run.row(row.id, number) for number, run in enumerate(new.runs))
                note_decision(session, row, "move", {}, by=owner, states=(None, StudyState.ACTIVE))
                if key is not None:
                    session.add(key_of(row, key, body_hash))
                return row, True
        except IntegrityError:
            if key is None:
                raise
            with self.database.reading() as session:  # an experiment that was submitted with this key was faster
                known = submitted_with(session, key, Study, owner=owner, body_hash=body_hash)
            if known is None:
                raise
            return known, False

    def get(self, study_id: str, *, kind: StudyKind | None = None) -> Study:
        """One study, of this kind where one is given. Raises StudyNotFound."""
        with self.database.reading() as session:
            row = _found(session, study_id)
        if kind is not None and row.kind != kind:
            raise StudyNotFound(f"there is no {kind} {study_id!r}; it is a {row.kind}")
        return row

    def replications(self, study_id: str) -> list[Study]:
        """The studies that repeat this one with fresh seeds, newest first."""
        query = select(Study).where(Study.replicates == study_id).order_by(Study.created_at.desc(), Study.id.desc())
        with self.database.reading() as session:
            return list(session.scalars(query))

    def page(
        self,
        kind: StudyKind,
        *,
        owner: str | None = None,
        states: Sequence[StudyState] = (),
        limit: int = 50,
        after: tuple[datetime, str] | None = None,
    ) -> tuple[list[Study], tuple[datetime, str] | None]:
        """Studies without their `specs`, newest first, and where the next page starts, or None on the last."""
        query = select(Study).options(defer(Study.specs, raiseload=True)).where(Study.kind == kind)
        if owner is not None:
            query = query.where(Study.owner == owner)
        if states:
            query = query.where(Study.state.in_(states))
        if after is not None:
            query = query.where(tuple_(Study.created_at, Study.id) < tuple_(*after))
        query = query.order_by(Study.created_at.desc(), Study.id.desc()).limit(limit + 1)
        with self.database.reading() as session:
            rows = list(session.scalars(query))
        shown = rows[:limit]
        return shown, (shown[-1].created_at, shown[-1].id) if len(rows) > limit else None

    def submitted(self, key: str | None, *, owner: str, body_hash: str) -> Study | None:
        """What this owner has submitted under the key in the last day. Raises what `submit` raises of a known key."""
        if key is None:
            return None
        with self.database.reading() as session:
            return submitted_with(session, key, Study, owner=owner, body_hash=body_hash)

    def counts(self, study_ids: Sequence[str]) -> dict[str, dict[State | None, int]]:
        """How many experiments of these studies are in which state; None for those that were deleted."""
        query = (
            select(Trial.study_id, Experiment.state, func.count())
            .outerjoin(Experiment, Experiment.id == Trial.experiment_id)
            .where(Trial.study_id.in_(study_ids))
            .group_by(Trial.study_id, Experiment.state)
        )
        found: dict[str, dict[State | None, int]] = {study_id: {} for study_id in study_ids}
        with self.database.reading() as session:
            for study_id, state, count in session.execute(query):
                found[study_id][None if state is None else State(state)] = count
        return found

    def snapshots(self, study_ids: Sequence[str]) -> list[StudySnapshot]:
        """Where these studies are; those that do not exist are left out."""
        columns = (Study.id, Study.version, Study.state, Study.reason, Study.message, Study.seeds)
        of_these = Trial.study_id.in_(study_ids)
        query = select(Trial.study_id, func.count(Trial.observed_at)).where(of_these).group_by(Trial.study_id)
        counts = self.counts(study_ids)
        with self.database.reading() as session:
            rows = session.execute(select(*columns).where(Study.id.in_(study_ids))).all()
            read: dict[str, int] = {study_id: count for study_id, count in session.execute(query)}  # noqa: C416
        return [
            StudySnapshot(row.id, row.version, StudyState(row.state), *row[3:], counts[row.id], read.get(row.id, 0))
            for row in rows
        ]

    def mlflow_runs(self, study_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Of those of these studies that MLflow knows its parent run, and MLflow's experiment that it is in."""
        query = select(StudyRun.study_id, StudyRun.experiment_id, StudyRun.run_id)
        chosen = query.where(StudyRun.study_id.in_(study_ids), StudyRun.run_id.is_not(None))
        with self.database.reading() as session:
            found = session.execute(chosen)
            return {study_id: (run_id, run_in) for study_id, run_in, run_id in found if run_id and run_in}

    def trials(self, study_id: str) -> list[TrialRow]:
        """The trials of a study with their experiments, whole, by number. Raises StudyNotFound."""
        query = (
            select(Trial, Experiment)
            .outerjoin(Experiment, Experiment.id == Trial.experiment_id)
            .where(Trial.study_id == study_id)
            .order_by(Trial.number)
        )
        with self.database.reading() as session:
            _found(session, study_id)
            return [TrialRow(trial, experiment) for trial, experiment in session.execute(query)]

    def trial_list(self, study_id: str, *, first: int = 0, limit: int | None = None) -> list[ListedTrial]:
        """The trials of a study from a number on, as a list shows them. Raises StudyNotFound."""
        columns = (Trial.number, Trial.variant, Trial.block, Trial.seed, Trial.experiment_id, Trial.correct)
        query = (
            select(*columns, Trial.images, Experiment.state)
            .outerjoin(Experiment, Experiment.id == Trial.experiment_id)
            .where(Trial.study_id == study_id, Trial.number >= first)
            .order_by(Trial.number)
        )
        with self.database.reading() as session:
            _found(session, study_id, with_specs=False)
            return [
                ListedTrial(*row[:-1], None if row.state is None else State(row.state))
                for row in session.execute(query.limit(limit))
            ]

    def decisions(self, study_id: str, *, after_seq: int = 0, limit: int | None = None) -> list[Decision]:
        """What was decided of a study, oldest first. Raises StudyNotFound."""
        query = select(Decision).where(Decision.study_id == study_id, Decision.seq > after_seq).order_by(Decision.seq)
        with self.database.reading() as session:
            _found(session, study_id, with_specs=False)
            return list(session.scalars(query.limit(limit)))

    def wish(self, study_id: str, action: str, *, by: str) -> Study:
        """Write down that somebody wants to cancel, pause or resume it; to ask twice is no error.

        Raises StudyNotFound, IllegalStudyAction.
        """
        desired = STUDY_WISHES[action]
        with self.database.writing() as session:
            row = _found(session, study_id, lock=True)
            was_asked = row.desired == desired and row.state not in STUDY_TERMINAL - {StudyState.CANCELLED}
            if not was_asked:
                require_study_action(row, action)
                row.desired = desired
                row.version += 1
                note_decision(session, row, "asked", {"action": action}, by=by)
            return row

    def retry(self, study_id: str, *, by: str) -> Study:
        """Queue its experiments that failed or were cancelled once more, and go on.

        A run that diverged has a result, and is not trained again; one whose checkpoints were pruned stays as it is,
        which is written down. What has succeeded and told no number is read again. A sweep queues them as it has room,
        and trains anew what was deleted without a value. Raises StudyNotFound,
        IllegalStudyAction, NothingToRetry where that would change nothing.
        """
        with self.database.writing() as session:
            row = _found(session, study_id, lock=True)
            require_study_action(row, "retry")
            if row.kind == StudyKind.SWEEP:
                queued, pruned = mark_for_retry(session, study_id)
                unread = list[int]()
            else:
                queued, pruned = ([], []) if row.chosen is not None else requeue_failed(session, study_id, by=by)
                unread = read_again(session, study_id)
            if not queued and not unread and (pruned or row.state == StudyState.SUCCEEDED):
                raise NothingToRetry(row.state, _actions(row), why=why_none(pruned))
            change_study_state(session, row, StudyMove(StudyState.ACTIVE), by=by)
            row.desired = Desired.RUN
            told = {"queued": queued, "read_again": unread, "pruned": pruned}
            payload = {"action": "retry"} | {name: value for name, value in told.items() if value}
            note_decision(session, row, "asked", payload, by=by)
            return row

    def add_seeds(
        self,
        study_id: str,
        seeds: int,
        *,
        by: str,
        version: int | None = None,
        check: Callable[[Study], None] | None = None,
    ) -> Study:
        """Want `seeds` seeds in all, more than now. Whether results were to be seen is kept with it.

        `check` raises where the kind of the study forbids it; it sees the row that is changed, under its lock. Raises
        StudyNotFound, VersionConflict, InvalidField for fewer than now, IllegalStudyAction.
        """
        with self.database.writing() as session:
            row = _found(session, study_id, lock=True)
            _check_version(row, version)
            if seeds == row.seeds:
                return row
            if row.chosen is not None:
                raise InvalidField("/seeds", "its runs were there before it: it trains nothing")
            if seeds < row.seeds:
                raise InvalidField("/seeds", f"it has {row.seeds} seeds; give more")
            if check is not None:
                check(row)
            require_study_action(row, "add-seeds")
            if row.state == StudyState.SUCCEEDED:
                change_study_state(session, row, StudyMove(StudyState.ACTIVE), by=by)
            row.seeds, row.seeds_chosen = seeds, True
            row.seeds_added = row.seeds_added or have_results(session, row.id)
            row.version += 1
            note_decision(session, row, "seeds", {"seeds": seeds, "message": "added"}, by=by)
            return row

    def extend(
        self, study_id: str, limits: Mapping[str, Any], *, by: str, version: int | None = None, most: int | None = None
    ) -> Study:
        """Change limits of a sweep; what is left out stays. One that has ended goes on where that asks for more.

        `most` is how many trials there can be. Raises StudyNotFound, VersionConflict, IllegalStudyAction, InvalidField.
        """
        with self.database.writing() as session:
            row = _found(session, study_id, lock=True)
            _check_version(row, version)
            after = {**(row.limits or {}), **limits}
            if after == row.limits:
                return row
            require_study_action(row, "extend")
            begun = session.scalar(select(func.count()).select_from(Trial).where(Trial.study_id == study_id)) or 0
            if after["trials"] < begun:
                raise InvalidField("/limits/trials", f"it has begun {begun} trials already; give as many at least")
            if most is not None and after["trials"] > most:
                raise InvalidField("/limits/trials", f"the grid has {most} points, each of which is tried once")
            if row.state == StudyState.SUCCEEDED and after["trials"] > begun:
                change_study_state(session, row, StudyMove(StudyState.ACTIVE), by=by)
            row.limits = after
            row.version += 1
            note_decision(session, row, "limits", {"limits": after}, by=by)
            return row

    def delete(self, study_id: str, *, by: str, experiments: bool = False, version: int | None = None) -> None:
        """Forget a study that has ended; its experiments stay, or are forgotten with it, some at a time.

        Thousands in one transaction would hold up all others on SQLite, the dispatcher's lease too. A second call goes
        on where one was cut off. Raises StudyNotFound, IllegalStudyAction, VersionConflict, GoesOn where an experiment
        has not ended.
        """
        while True:
            with self.database.writing() as session:
                row = _found(session, study_id, lock=True, with_specs=False)
                _check_version(row, version)
                require_study_action(row, "delete")
                if experiments and row.chosen is not None:
                    raise InvalidField("experiments", "they were there before it: delete them by themselves")
                if not experiments or not delete_some(session, study_id, by=by):
                    session.execute(delete(Study).where(Study.id == study_id))
                    return


def require_study_action(row: Study, action: str) -> None:
    """Raise IllegalStudyAction where the action cannot be asked for in this state."""
    legal = _actions(row)
    if action not in legal:
        raise IllegalStudyAction(action, row.state, legal)


def _actions(row: Study) -> tuple[str, ...]:
    return study_actions(StudyKind(row.kind), StudyState(row.state))


def _check_version(row: Study, version: int | None) -> None:
    if version is not None and row.version != version:
        raise VersionConflict("the study has changed since this version of it was read; read it again")


def _found(session: Session, study_id: str, *, lock: bool = False, with_specs: bool = True) -> Study:
    options = () if with_specs else (defer(Study.spec, raiseload=True), defer(Study.specs, raiseload=True))
    row = session.get(Study, study_id, with_for_update=lock or None, options=options)
    if row is None:
        raise StudyNotFound(f"there is no study {study_id!r}")
    return row
