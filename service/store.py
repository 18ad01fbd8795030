"""What the API reads and writes: experiments, their events and attempts. Each call is one short transaction.

A state changes in one place only, `change_state`: it checks the move and writes its event in the same transaction.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Select, func, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from cbam_core.spec import ExperimentSpec
from service import outbox
from service.db import Database
from service.errors import ExperimentNotFound, IdempotencyConflict, IllegalAction, StaleMove
from service.models import Attempt, Event, Experiment, IdempotencyKey
from service.states import ACTIONS, Desired, Move, State, is_legal

ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford: no letter looks like a digit
PAGE_LIMIT = 200


def utc_now() -> datetime:
    """The present, aware."""
    return datetime.now(UTC)


def new_id() -> str:
    """Twelve letters and digits: 60 random bits."""
    return "".join(secrets.choice(ID_ALPHABET) for _ in range(12))


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which experiments a list shows."""

    states: Sequence[State] = ()
    project: str | None = None
    name_contains: str | None = None


def change_state(session: Session, row: Experiment, move: Move, *, by: str) -> None:
    """The one door for a change of state. Raises StaleMove where the row is no longer what was read."""
    source = State(row.state)
    if not is_legal(source, move.to):
        raise ValueError(f"{source} to {move.to} is not a legal move")
    moved = session.execute(
        update(Experiment)
        .where(Experiment.id == row.id, Experiment.state == row.state, Experiment.version == row.version)
        .values(state=move.to, reason=move.reason, message=move.message, version=Experiment.version + 1)
        .execution_options(synchronize_session=False)
    )
    if moved.rowcount != 1:  # type: ignore[attr-defined]
        raise StaleMove
    event = Event(
        experiment_id=row.id,
        attempt=row.attempt,
        from_state=source,
        to_state=move.to,
        reason=move.reason,
        message=move.message,
        by=by,
        at=utc_now(),
    )
    session.add(event)
    session.flush()
    session.refresh(row)
    outbox.tell(session, row, event)


class Store:
    """The experiments, as the API sees them."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def submit(
        self, spec: ExperimentSpec, *, owner: str = "local", key: str | None = None, body_hash: str = ""
    ) -> tuple[Experiment, bool]:
        """Store an experiment as QUEUED; with a key that this owner used before, give the experiment stored then.

        Returns the row and whether it is new. Raises IdempotencyConflict where the key came with another body.
        """
        try:
            with self.database.writing() as session:
                if key is not None and (known := _known(session, owner, key, body_hash)):
                    return known, False
                row = _insert(session, spec, owner)
                if key is not None:
                    session.add(_used(row, key, body_hash))
                return row, True
        except IntegrityError:
            if key is None:
                raise
            with self.database.reading() as session:  # another request with this key was faster
                known = _known(session, owner, key, body_hash)
            assert known is not None
            return known, False

    def get(self, experiment_id: str) -> Experiment:
        """One experiment. Raises ExperimentNotFound."""
        with self.database.reading() as session:
            return _found(session, experiment_id)

    def page(
        self, where: Filter, *, limit: int = 50, after: tuple[datetime, str] | None = None
    ) -> tuple[list[Experiment], tuple[datetime, str] | None]:
        """The newest experiments, and the place where the next page starts, or None on the last."""
        query = _filtered(where).order_by(Experiment.created_at.desc(), Experiment.id.desc()).limit(limit + 1)
        if after is not None:
            query = query.where(tuple_(Experiment.created_at, Experiment.id) < tuple_(*after))
        with self.database.reading() as session:
            rows = list(session.scalars(query))
        more = len(rows) > limit
        rows = rows[:limit]
        return rows, (rows[-1].created_at, rows[-1].id) if more else None

    def wish(self, experiment_id: str, choose: Callable[[Experiment], Desired]) -> Experiment:
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

        Raises IllegalAction in any other state.
        """
        with self.database.writing() as session:
            row = _found(session, experiment_id, lock=True)
            if "retry" not in ACTIONS[State(row.state)]:
                raise IllegalAction("retry", State(row.state))
            change_state(session, row, Move(State.QUEUED), by=by)
            row.desired = Desired.RUN
            row.free_retries = row.charged_retries = row.passed = 0
            row.queued_at = utc_now()
            row.deadline_at = _deadline(row.spec["deadline_minutes"], row.queued_at)
            row.not_before = row.ended_at = None
            row.tracking_closed = False
            return row

    def events(self, experiment_id: str, *, after_seq: int = 0) -> list[Event]:
        """The moves of one experiment, oldest first. Raises ExperimentNotFound."""
        query = select(Event).where(Event.experiment_id == experiment_id, Event.seq > after_seq).order_by(Event.seq)
        with self.database.reading() as session:
            _found(session, experiment_id)
            return list(session.scalars(query))

    def attempts(self, experiment_id: str) -> list[Attempt]:
        """The attempts of one experiment, oldest first. Raises ExperimentNotFound."""
        query = select(Attempt).where(Attempt.experiment_id == experiment_id).order_by(Attempt.number)
        with self.database.reading() as session:
            _found(session, experiment_id)
            return list(session.scalars(query))

    def count_by_state(self) -> dict[State, int]:
        """How many experiments are in each state; every state has a number."""
        query = select(Experiment.state, func.count()).group_by(Experiment.state)
        with self.database.reading() as session:
            counts = {State(state): count for state, count in session.execute(query)}
        return {state: counts.get(state, 0) for state in State}

    def longest_waiting_seconds(self) -> float:
        """How long the oldest QUEUED experiment has waited; 0 where none does."""
        with self.database.reading() as session:
            oldest = session.scalar(select(func.min(Experiment.queued_at)).where(Experiment.state == State.QUEUED))
        return 0.0 if oldest is None else max(0.0, (utc_now() - oldest).total_seconds())

    def ping(self) -> None:
        """Raise whatever the database raises where it does not answer."""
        with self.database.reading() as session:
            session.execute(select(1))


def _insert(session: Session, spec: ExperimentSpec, owner: str) -> Experiment:
    now = utc_now()
    row = Experiment(
        id=new_id(),
        name=spec.name,
        project=spec.project,
        tags=spec.tags,
        owner=owner,
        priority=spec.priority,
        spec=spec.model_dump(mode="json"),
        state=State.QUEUED,
        progress={},
        summary={},
        created_at=now,
        queued_at=now,
        deadline_at=_deadline(spec.deadline_minutes, now),
    )
    session.add(row)
    session.flush()
    event = Event(experiment_id=row.id, attempt=0, to_state=State.QUEUED, message="", by=owner, at=now)
    session.add(event)
    session.flush()
    outbox.tell(session, row, event)
    return row


def _deadline(minutes: float | None, start: datetime) -> datetime | None:
    return None if minutes is None else start + timedelta(minutes=minutes)


def _used(row: Experiment, key: str, body_hash: str) -> IdempotencyKey:
    return IdempotencyKey(
        owner=row.owner, key=key, body_hash=body_hash, experiment_id=row.id, created_at=row.created_at
    )


def _known(session: Session, owner: str, key: str, body_hash: str) -> Experiment | None:
    seen = session.get(IdempotencyKey, (owner, key))
    if seen is None:
        return None
    if seen.body_hash != body_hash:
        raise IdempotencyConflict
    return _found(session, seen.experiment_id)


def _found(session: Session, experiment_id: str, *, lock: bool = False) -> Experiment:
    row = session.get(Experiment, experiment_id, with_for_update=lock or None)
    if row is None:
        raise ExperimentNotFound(f"there is no experiment {experiment_id!r}")
    return row


def _filtered(where: Filter) -> Select[Experiment]:
    query = select(Experiment)
    if where.states:
        query = query.where(Experiment.state.in_(where.states))
    if where.project is not None:
        query = query.where(Experiment.project == where.project)
    if where.name_contains:
        query = query.where(Experiment.name.icontains(where.name_contains, autoescape=True))
    return query
