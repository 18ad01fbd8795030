"""What the dispatcher reads and writes. Every write checks in its own transaction that this dispatcher still leads."""

import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, or_, select, update
from sqlalchemy.orm import Session

from service.cluster.base import Node
from service.database.engine import Database
from service.database.lease import Leadership
from service.database.models.base import UtcDateTime
from service.database.models.experiments import Attempt, Deletion, Experiment
from service.database.models.operations import ClusterRow, ProcessReport
from service.database.transitions import change_state
from service.domain.states import HOLDS_GANG, TERMINAL, Desired, Move, Reason, Retry, State, backoff
from service.domain.values import utc_now
from service.errors import StaleMove

QUEUE_WINDOW = 200  # as many of the queue's first are looked at in one tick
CLUSTER = "ray"  # the name of the one row

Live = list[tuple[Experiment, Attempt]]


# What every tick asks for. Made once: to put such a statement together takes longer than to run it.
_now = bindparam("now", type_=UtcDateTime())
_READY = select(Experiment).where(
    Experiment.state == State.QUEUED,
    Experiment.desired == "run",
    or_(Experiment.not_before.is_(None), Experiment.not_before <= _now),
)
_OWNERS = select(Experiment.owner).where(Experiment.state == State.QUEUED).distinct()
_FIRST = (
    _READY.where(Experiment.owner == bindparam("owner"), Experiment.reason.is_distinct_from(Reason.UNSCHEDULABLE))
    .order_by(Experiment.priority.desc(), Experiment.queued_at, Experiment.id)
    .limit(bindparam("window"))
)
_HOPELESS = (
    _READY.where(Experiment.reason == Reason.UNSCHEDULABLE)
    .order_by(Experiment.queued_at, Experiment.id)
    .limit(QUEUE_WINDOW)
)
_LIVE = (
    select(Experiment, Attempt)
    .join(Attempt, and_(Attempt.experiment_id == Experiment.id, Attempt.number == Experiment.attempt))
    .where(Experiment.state.in_(HOLDS_GANG))
    .order_by(Experiment.id)
)
_UNSETTLED = (
    select(Experiment)
    .where(
        or_(
            and_(Experiment.state == State.QUEUED, Experiment.desired.in_(("pause", "cancel"))),
            and_(Experiment.state == State.QUEUED, Experiment.deadline_at < _now),
            and_(Experiment.state == State.PAUSED, Experiment.desired.in_(("run", "cancel"))),
        )
    )
    .limit(QUEUE_WINDOW)
)
_OPEN_RUNS = (
    select(Experiment)
    .where(Experiment.state.in_(TERMINAL), Experiment.tracking_closed.is_(False))
    .where(Experiment.id.not_in(bindparam("besides", expanding=True)))
    .order_by(Experiment.ended_at)
    .limit(QUEUE_WINDOW)
)


@dataclass(frozen=True)
class AttemptEnd:
    """What is written beside a move that ends an attempt."""

    last_step: int = 0
    resumed_from_step: int | None = None
    node_ids: tuple[str, ...] = ()
    progress: dict[str, Any] | None = None
    summary: dict[str, Any] | None = None
    run_id: str | None = None
    run_in: str | None = None  # MLflow's experiment that the run is in
    tracked: bool = False  # MLflow knows of this end


@dataclass(frozen=True)
class ProgressUpdate:
    """How far a running attempt is, and the MLflow run it writes to, once it has one."""

    experiment_id: str
    attempt: int
    progress: dict[str, Any]
    run_id: str | None
    run_in: str | None = None  # MLflow's experiment that the run is in


class DispatcherStore:
    """The rows, as the leading dispatcher sees them."""

    def __init__(self, database: Database, leadership: Leadership, *, backoff_seconds: float) -> None:
        self.database = database
        self.leadership = leadership
        self.backoff_seconds = backoff_seconds

    def live(self) -> Live:
        """Every experiment that has, or should have, a gang, with its attempt."""
        with self.database.reading() as session:
            return [(experiment, attempt) for experiment, attempt in session.execute(_LIVE)]

    def previous_step(self, attempt: Attempt) -> int:
        """The step at which the attempt before this one ended; 0 where there was none."""
        query = select(Attempt.last_step).where(
            Attempt.experiment_id == attempt.experiment_id, Attempt.number == attempt.number - 1
        )
        with self.database.reading() as session:
            return session.scalar(query) or 0

    def unsettled(self) -> list[Experiment]:
        """What waits, without a gang, and must move: cancelled, paused or resumed by wish, or past its deadline."""
        with self.database.reading() as session:
            return list(session.scalars(_UNSETTLED, {"now": utc_now()}))

    def queue(self) -> list[Experiment]:
        """The first of each owner's queue: the larger priority, then first come. Nobody fills the window alone.

        What is known to be UNSCHEDULABLE fills a window of its own, so that it keeps nobody out: it is there for an
        autoscaler to hear of, and is looked at as all others again after `ask_anew`.
        """
        now = utc_now()
        with self.database.reading() as session:
            owners = list(session.scalars(_OWNERS))
            window = max(1, QUEUE_WINDOW // max(1, len(owners)))
            firsts = [session.scalars(_FIRST, {"now": now, "owner": name, "window": window}) for name in owners]
            return [row for rows in (*firsts, session.scalars(_HOPELESS, {"now": now})) for row in rows]

    def ask_anew(self) -> None:
        """Forget what was UNSCHEDULABLE: the cluster is not what it was."""
        with self._writing() as session:
            session.execute(
                update(Experiment)
                .where(Experiment.state == State.QUEUED, Experiment.reason == Reason.UNSCHEDULABLE)
                .values(reason=None, message="")
            )

    def claim(self, experiment: Experiment, workers: int, *, gang: str | None = None) -> Attempt:
        """QUEUED to STARTING with a new attempt, whose gang is known before it begins there.

        Raises StaleMove where the row has changed, NotLeading.
        """
        with self._writing() as session:
            row = _current(session, experiment)
            now = utc_now()
            row.attempt += 1
            row.started_at = row.started_at or now
            row.passed = 0
            attempt = Attempt(
                experiment_id=row.id,
                number=row.attempt,
                token=secrets.token_hex(16),
                workers=workers,
                gang=gang,
                node_ids=[],
                started_at=now,
            )
            change_state(session, row, Move(State.STARTING), by=self.leadership.holder)
            session.add(attempt)
        return attempt

    def apply(self, experiment: Experiment, move: Move, ending: AttemptEnd | None = None) -> Experiment:
        """Make a move; with an ending, close the attempt in the same transaction. Raises StaleMove, NotLeading."""
        with self._writing() as session:
            row = _current(session, experiment)
            change_state(session, row, move, by=self.leadership.holder)
            now = utc_now()
            if ending is not None:
                _close_attempt(session, row, move, ending, now)
                row.progress = ending.progress or row.progress
                row.summary = ending.summary or row.summary
                row.mlflow_run_id = ending.run_id or row.mlflow_run_id
                row.mlflow_experiment_id = ending.run_in or row.mlflow_experiment_id
            if row.attempt and move.to not in HOLDS_GANG:
                row.disk_measured_at = None  # its last attempt has left files
            if move.to in TERMINAL:
                row.ended_at = now
                has_run = row.attempt > 0
                row.tracking_closed = not has_run or (ending is not None and ending.tracked)
            if move.to is State.QUEUED:
                came_back = move.charge is not None or move.reason in (Reason.PREEMPTED, Reason.START_TIMEOUT)
                row.queued_at = row.queued_at if came_back else now
                row.desired = Desired.RUN if row.desired == Desired.YIELD else row.desired
                self._count_retry(row, move, now)
        return row

    def _count_retry(self, row: Experiment, move: Move, now: datetime) -> None:
        if move.charge is Retry.FREE:
            row.free_retries += 1
        elif move.charge is Retry.CHARGED:
            row.charged_retries += 1
        retries = row.free_retries + row.charged_retries
        if move.charge is not None:
            row.not_before = now + timedelta(seconds=backoff(retries, first_seconds=self.backoff_seconds))

    def note_progress(self, notes: Sequence[ProgressUpdate]) -> None:
        """Write down how far running attempts are: one transaction for all, as there may be thousands."""
        if not notes:
            return
        rows = Experiment.__table__.c
        still_holds = or_(*(rows.state == state for state in HOLDS_GANG))  # IN cannot be sent for many rows at once
        write = (
            update(Experiment.__table__)  # type: ignore[arg-type]
            .where(rows.id == bindparam("of_id"), rows.attempt == bindparam("of_attempt"), still_holds)
            .values(
                progress=bindparam("now_at"),
                mlflow_run_id=func.coalesce(bindparam("run"), rows.mlflow_run_id),
                mlflow_experiment_id=func.coalesce(bindparam("run_in"), rows.mlflow_experiment_id),
            )
        )
        values = [
            {
                "of_id": note.experiment_id,
                "of_attempt": note.attempt,
                "now_at": note.progress,
                "run": note.run_id,
                "run_in": note.run_in,
            }
            for note in notes
        ]
        with self._writing() as session:
            session.connection().execute(write, values)

    def ask_to_yield(self, experiment_ids: Sequence[str]) -> None:
        """Have running experiments make room; a wish of the user's own stands above it."""
        if not experiment_ids:
            return
        with self._writing() as session:
            session.execute(
                update(Experiment)
                .where(
                    Experiment.id.in_(experiment_ids), Experiment.state == State.RUNNING, Experiment.desired == "run"
                )
                .values(desired=Desired.YIELD, version=Experiment.version + 1)
            )

    def note_passed(self, times: dict[str, int]) -> None:
        """Count how often others went before those that wait for room."""
        with self._writing() as session:
            for experiment_id, count in times.items():
                session.execute(
                    update(Experiment)
                    .where(Experiment.id == experiment_id, Experiment.state == State.QUEUED)
                    .values(passed=Experiment.passed + count)
                )

    def note_waiting(self, reason: Reason | None, messages: dict[str, str]) -> None:
        """Tell those that wait what they wait for."""
        with self._writing() as session:
            for experiment_id, message in messages.items():
                session.execute(
                    update(Experiment)
                    .where(Experiment.id == experiment_id, Experiment.state == State.QUEUED)
                    .values(reason=reason, message=message)
                )

    def open_runs(self, *, besides: Collection[str] = ()) -> list[Experiment]:
        """Ended experiments whose MLflow run may not say so yet, without those of these ids."""
        with self.database.reading() as session:
            return list(session.scalars(_OPEN_RUNS, {"besides": list(besides)}))

    def close_run(self, read: Experiment, run_id: str | None, run_in: str | None = None) -> None:
        """Note that the MLflow run says how the experiment ended; nothing where it has been retried since it was read.

        `run_in` is MLflow's experiment that the run is in. What is known stays known: None changes nothing.
        """
        known = {} if run_id is None else {"mlflow_run_id": run_id}
        known |= {} if run_in is None else {"mlflow_experiment_id": run_in}
        with self._writing() as session:
            session.execute(
                update(Experiment)
                .where(Experiment.id == read.id, Experiment.attempt == read.attempt, Experiment.state == read.state)
                .values(tracking_closed=True, **known)
            )

    def deletions(self) -> list[str]:
        """The ids of deleted experiments whose files may still be there."""
        with self.database.reading() as session:
            return [*session.scalars(select(Deletion.experiment_id).order_by(Deletion.at).limit(QUEUE_WINDOW))]

    def close_deletion(self, experiment_id: str) -> None:
        """Note that nothing of a deleted experiment is left."""
        with self._writing() as session:
            session.execute(delete(Deletion).where(Deletion.experiment_id == experiment_id))

    def note_cluster(self, *, reachable: bool, message: str, nodes: Sequence[Node] | None) -> None:
        """Write down what is seen of the cluster, for the API; without nodes those that were last seen stay."""
        with self._writing() as session:
            row = session.get(ClusterRow, CLUSTER) or ClusterRow(name=CLUSTER, nodes=[])
            row.at, row.reachable, row.message = utc_now(), reachable, message
            if nodes is not None:
                row.nodes = [asdict(node) for node in nodes]
            session.add(row)

    def report(self, metrics: str, *, trouble: str = "") -> None:
        """Leave this dispatcher's numbers, and why its tick fails, for an API to show."""
        row = ProcessReport(process="dispatcher", holder=self.leadership.holder, at=utc_now(), metrics=metrics)
        row.trouble = trouble
        with self._writing() as session:
            session.merge(row)

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self.database.writing() as session:
            self.leadership.guard(session)
            yield session


def _current(session: Session, read: Experiment) -> Experiment:
    """The row as it is now. Raises StaleMove where it is no longer the one that was read."""
    row = session.get(Experiment, read.id, with_for_update=True)
    if row is None or row.version != read.version:
        raise StaleMove
    return row


def _close_attempt(session: Session, row: Experiment, move: Move, ending: AttemptEnd, now: datetime) -> None:
    session.execute(
        update(Attempt)
        .where(Attempt.experiment_id == row.id, Attempt.number == row.attempt, Attempt.ended_at.is_(None))
        .values(
            ended_at=now,
            reason=move.reason,
            message=move.message,
            last_step=ending.last_step,
            resumed_from_step=ending.resumed_from_step,
            node_ids=list(ending.node_ids),
        )
    )
