"""What the API reads and writes: experiments, their events and attempts. Each call is one short transaction.

A state changes in one place only, `change_state`: it checks the move and writes its event in the same transaction.
"""

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, defer

from cbam_core.spec import ExperimentSpec
from service.database.disk_usage import require_room
from service.database.engine import Database
from service.database.listing import cursor_of, labels_of, page_query
from service.database.models.auth import FileLink
from service.database.models.experiments import Attempt, Deletion, Event, Experiment, Label, Pruning
from service.database.models.studies import Study
from service.database.study_transitions import change_study_state
from service.database.transitions import change_state
from service.domain.filters import Cursor, Filter, Sort
from service.domain.pruning import NEEDS_CHECKPOINTS, PruneScope, allowed_actions, require_prunable
from service.domain.scheduling_spec import load_scheduling_spec
from service.domain.states import Desired, Move, State
from service.domain.studies import StudyMove, StudyState
from service.domain.values import human_bytes, utc_now
from service.errors import (
    ExperimentNotFound,
    IllegalAction,
    PrunedExperiment,
    VersionConflict,
)
from service.experiments.insertion import deadline_of, insert_experiment
from service.experiments.keys import forget_old_keys, key_of, submitted_with

MOST_PAGE_BYTES = 4 * 2**20  # of a page of a list


@dataclass(frozen=True)
class ExperimentSnapshot:
    """As much of an experiment as those need who watch it: its version changes with its state."""

    id: str
    state: str
    reason: str | None
    attempt: int
    version: int


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What of an experiment may be changed after its submission; None leaves it as it is."""

    priority: int | None = None
    tags: dict[str, str] | None = None
    description: str | None = None


class ExperimentStore:
    """The experiments, as the API sees them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def submit(
        self,
        spec: ExperimentSpec,
        *,
        owner: str = "local",
        key: str | None = None,
        body_hash: str = "",
        cloned_from: str | None = None,
        message: str = "",
        quota_disk: int | None = None,
    ) -> tuple[Experiment, bool]:
        """Store an experiment as QUEUED; with a key that this owner used in the last day, give the one stored then.

        `message` goes with its first event. Returns the row and whether it is new. Raises IdempotencyConflict where the
        key came with another body, and ExperimentDeleted where the experiment that it stands for has been deleted
        since; DiskQuotaExceeded for a new one of an owner whose files come to `quota_disk` bytes.
        """
        try:
            with self.database.writing() as session:
                if key is not None:
                    forget_old_keys(session)
                    if known := submitted_with(session, key, Experiment, owner=owner, body_hash=body_hash):
                        return known, False
                require_room(session, owner, quota_disk)
                row = insert_experiment(session, spec, owner, cloned_from=cloned_from, message=message)
                if key is not None:
                    session.add(key_of(row, key, body_hash))
                return row, True
        except IntegrityError:
            if key is None:
                raise
            with self.database.reading() as session:  # another request with this key was faster
                known = submitted_with(session, key, Experiment, owner=owner, body_hash=body_hash)
            assert known is not None
            return known, False

    def submitted(self, key: str | None, *, owner: str, body_hash: str) -> Experiment | None:
        """What this owner has submitted under the key in the last day. Raises what `submit` raises of a known key."""
        if key is None:
            return None
        with self.database.reading() as session:
            return submitted_with(session, key, Experiment, owner=owner, body_hash=body_hash)

    def get(self, experiment_id: str) -> Experiment:
        """One experiment. Raises ExperimentNotFound."""
        with self.database.reading() as session:
            return _found(session, experiment_id)

    def page(
        self,
        where: Filter,
        *,
        sort: Sort = Sort.NEWEST,
        limit: int = 50,
        after: Cursor | None = None,
        specs: bool = True,
    ) -> tuple[list[Experiment], Cursor | None]:
        """Experiments in their order, and the place where the next page starts, or None on the last.

        Without `specs` they are not read, and the rows have none. A page ends early where what it shows comes to more
        than MOST_PAGE_BYTES.
        """
        with self.database.reading() as session:  # ids first: a database that must sort should not move whole rows
            ids = list(
                session.scalars(page_query(where, sort, after).with_only_columns(Experiment.id).limit(limit + 1))
            )
            chosen = select(Experiment).where(Experiment.id.in_(ids[:limit]))
            found = session.scalars(chosen if specs else chosen.options(defer(Experiment.spec, raiseload=True)))
            rows = sorted(found, key=lambda row: ids.index(row.id))
        shown = rows[: _as_many_as_fit(rows, specs=specs)]
        return shown, cursor_of(shown[-1], sort) if len(ids) > len(shown) else None

    def change(self, experiment_id: str, changes: Changes, *, version: int | None = None) -> Experiment:
        """Change what may be changed, where the row is still of that version. Raises VersionConflict.

        The spec says the same afterwards: the next attempt, and its MLflow run, go by it.
        """
        with self.database.writing() as session:
            row = _found(session, experiment_id, lock=True)
            _check_version(row, version)
            new = {name: value for name, value in vars(changes).items() if value is not None}
            if all(getattr(row, name) == value for name, value in new.items()):
                return row
            for name, value in new.items():
                setattr(row, name, value)
            if isinstance(row.spec, dict):  # not damaged by hand
                row.spec = row.spec | new
            row.version += 1
            if changes.tags is not None:
                session.execute(delete(Label).where(Label.experiment_id == row.id))
                session.add_all(labels_of(row))
            return row

    def delete(self, experiment_id: str, *, by: str, version: int | None = None) -> None:
        """Forget an experiment that has ended; a note stays until its files are gone too.

        Raises IllegalAction while it has not ended, VersionConflict.
        """
        with self.database.writing() as session:
            row = _found(session, experiment_id, lock=True)
            _check_version(row, version)
            delete_in(session, row, by=by)

    def prune(self, experiment_id: str, scope: PruneScope, *, by: str, dry_run: bool = False) -> tuple[Experiment, int]:
        """Have files of an ended experiment removed; the dispatcher does it. To ask twice is no error.

        Returns the row and the bytes that go, as last measured. Raises what `require_prunable` raises.
        """
        with self.database.reading() if dry_run else self.database.writing() as session:
            row = _found(session, experiment_id, lock=not dry_run)
            require_prunable(State(row.state), scope, tracked=row.tracking_closed)
            if row.pruned is not None and PruneScope(row.pruned).covers(scope):
                return row, 0
            size = row.disk_bytes if scope is PruneScope.ALL else row.checkpoint_bytes
            if not dry_run:
                row.pruned, row.pruned_at = scope, utc_now()
                row.version += 1
                session.execute(delete(FileLink).where(FileLink.experiment_id == row.id))
                session.merge(Pruning(experiment_id=row.id, what=scope, at=row.pruned_at))
                session.add(_event_beside(row, f"pruned: {scope}, {human_bytes(size)}", by=by))
            return row, size

    def set_desired(self, experiment_id: str, choose: Callable[[Experiment], Desired]) -> Experiment:
        """Write down what the user wants, chosen from the row as it is now; the dispatcher makes it so."""
        with self.database.writing() as session:
            row = _found(session, experiment_id, lock=True)
            desired = choose(row)
            if row.desired != desired:
                row.desired = desired
                row.version += 1
            return row

    def requeue(self, experiment_id: str, *, by: str = "local") -> Experiment:
        """Queue an experiment that failed or was cancelled once more; it goes on from its last checkpoint.

        Raises IllegalAction in any other state, PrunedExperiment where that checkpoint was pruned.
        """
        with self.database.writing() as session:
            _reopen_study(session, _found(session, experiment_id).study_id, by=by)
            row = _found(session, experiment_id, lock=True)
            requeue_in(session, row, by=by)
            return row

    def events(self, experiment_id: str, *, after_seq: int = 0, limit: int | None = None) -> list[Event]:
        """The moves of one experiment, oldest first. Raises ExperimentNotFound."""
        query = select(Event).where(Event.experiment_id == experiment_id, Event.seq > after_seq).order_by(Event.seq)
        with self.database.reading() as session:
            _found(session, experiment_id)
            return list(session.scalars(query.limit(limit)))

    def attempts(self, experiment_id: str, *, after: int = 0, limit: int | None = None) -> list[Attempt]:
        """The attempts of one experiment behind a number, oldest first. Raises ExperimentNotFound."""
        query = select(Attempt).where(Attempt.experiment_id == experiment_id, Attempt.number > after)
        with self.database.reading() as session:
            _found(session, experiment_id)
            return list(session.scalars(query.order_by(Attempt.number).limit(limit)))

    def several(self, experiment_ids: Collection[str]) -> list[Experiment]:
        """These experiments; those that do not exist are left out."""
        with self.database.reading() as session:
            return list(session.scalars(select(Experiment).where(Experiment.id.in_(experiment_ids))))

    def newest_of(self, projects: Collection[str], *, limit: int) -> list[Experiment]:
        """The newest experiments of some projects."""
        newest = Experiment.created_at.desc(), Experiment.id.desc()
        query = select(Experiment).where(Experiment.project.in_(projects)).order_by(*newest).limit(limit)
        with self.database.reading() as session:
            return list(session.scalars(query))

    def snapshots(self, experiment_ids: Sequence[str]) -> list[ExperimentSnapshot]:
        """Where these experiments are; those that do not exist are left out."""
        columns = (Experiment.id, Experiment.state, Experiment.reason, Experiment.attempt, Experiment.version)
        with self.database.reading() as session:
            return [
                ExperimentSnapshot(*row)
                for row in session.execute(select(*columns).where(Experiment.id.in_(experiment_ids)))
            ]


def _as_many_as_fit(rows: Sequence[Experiment], *, specs: bool) -> int:
    """How many rows a page takes: at least one."""
    shown = (*(("spec",) if specs else ()), "description", "tags", "message", "progress", "summary")
    left = MOST_PAGE_BYTES
    for index, row in enumerate(rows):
        left -= len(json.dumps([getattr(row, name) for name in shown]))
        if left < 0 and index:
            return index
    return len(rows)


def require_allowed(row: Experiment, action: str) -> None:
    """Raise IllegalAction, or PrunedExperiment which is one, where the action cannot be asked for."""
    legal = allowed_actions(State(row.state), pruned=row.pruned is not None)
    if row.pruned is not None and action in NEEDS_CHECKPOINTS:
        raise PrunedExperiment(action, row.pruned_at, legal)
    if action not in legal:
        raise IllegalAction(action, row.state, legal)


def delete_in(session: Session, row: Experiment, *, by: str) -> None:
    """Forget an experiment in a transaction that is open. Raises IllegalAction while it has not ended."""
    require_allowed(row, "delete")
    forget_in(session, [row], by=by)


def forget_in(session: Session, rows: Sequence[Experiment] | Sequence[Row[*tuple[Any, ...]]], *, by: str) -> None:
    """Forget experiments that have ended, of which at least id, name, owner and bytes are given."""
    at = utc_now()
    for row in rows:
        note = Deletion(experiment_id=row.id, name=row.name, owner=row.owner, by=by, at=at)
        note.disk_bytes = row.disk_bytes
        session.add(note)
    session.execute(delete(Experiment).where(Experiment.id.in_([row.id for row in rows])))


def requeue_in(session: Session, row: Experiment, *, by: str) -> None:
    """Queue one more time what failed or was cancelled, in a transaction that is open. Raises what `requeue` raises."""
    require_allowed(row, "retry")
    change_state(session, row, Move(State.QUEUED), by=by)
    row.desired = Desired.RUN
    row.free_retries = row.charged_retries = row.passed = 0
    row.queued_at = utc_now()
    row.deadline_at = deadline_of(load_scheduling_spec(row.spec)[0].deadline_minutes, row.queued_at)
    row.not_before = row.ended_at = None
    row.tracking_closed = False


def _reopen_study(session: Session, study_id: str | None, *, by: str) -> None:
    """A study that has its result goes on with its experiment. A study is locked before its experiments."""
    study = None if study_id is None else session.get(Study, study_id, with_for_update=True)
    if study is not None and study.state == StudyState.SUCCEEDED:
        change_study_state(session, study, StudyMove(StudyState.ACTIVE), by=by)


def _event_beside(row: Experiment, message: str, *, by: str) -> Event:
    """An event that leaves the state as it is: webhooks, which are told of changes of state, are not told."""
    return Event(experiment_id=row.id, attempt=row.attempt, to_state=row.state, message=message, by=by, at=utc_now())


def _found(session: Session, experiment_id: str, *, lock: bool = False) -> Experiment:
    row = session.get(Experiment, experiment_id, with_for_update=lock or None)
    if row is None:
        raise ExperimentNotFound(f"there is no experiment {experiment_id!r}")
    return row


def _check_version(row: Experiment, version: int | None) -> None:
    if version is not None and row.version != version:
        raise VersionConflict
