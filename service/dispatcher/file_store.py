"""What the dispatcher reads and writes about files: what goes, what experiments keep, which storage it is."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import and_, bindparam, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from service.database.disk_usage import disk_usage
from service.database.engine import Database
from service.database.lease import Leadership
from service.database.models.base import UtcDateTime
from service.database.models.experiments import Deletion, Experiment, Pruning
from service.database.models.operations import StorageMarker
from service.domain.pruning import PruneScope
from service.domain.states import HOLDS_GANG
from service.domain.values import utc_now

BATCH = 200
LIVE_SECONDS = 60.0  # between two looks at the files of a running experiment


@dataclass(frozen=True)
class Unmeasured:
    """An experiment whose files are to be measured, as it was read."""

    id: str
    state: str
    attempt: int
    pruned_at: datetime | None


@dataclass(frozen=True)
class Measured:
    """What was found of it."""

    of: Unmeasured
    disk_bytes: int
    checkpoint_bytes: int
    at: datetime


class FileStore:
    """The rows about files, as the leading dispatcher sees them."""

    def __init__(self, database: Database, leadership: Leadership) -> None:
        self.database = database
        self.leadership = leadership

    def prunings(self) -> dict[str, PruneScope]:
        """What is to be removed of which experiments, the longest asked for first."""
        with self.database.reading() as session:
            rows = session.scalars(select(Pruning).order_by(Pruning.at).limit(BATCH))
            return {row.experiment_id: PruneScope(row.what) for row in rows}

    def close_pruning(self, experiment_id: str, scope: PruneScope) -> None:
        """Note that it is done, unless more has been asked for since, and that the rest is to be measured."""
        with self._writing() as session:
            session.execute(delete(Pruning).where(Pruning.experiment_id == experiment_id, Pruning.what == scope))
            session.execute(update(Experiment).where(Experiment.id == experiment_id).values(disk_measured_at=None))

    def storage_marker(self) -> str | None:
        """What the file holds by which storage is known; None before the first start."""
        with self.database.reading() as session:
            return session.scalar(select(StorageMarker.marker).order_by(StorageMarker.at).limit(1))

    def note_storage_marker(self, marker: str) -> None:
        """Write it down, for good."""
        with self._writing() as session:
            if session.scalar(select(StorageMarker.marker).limit(1)) is None:
                session.add(StorageMarker(marker=marker, at=utc_now()))

    def has_stored(self) -> bool:
        """Whether there should be files of experiments on storage."""
        ran = exists().where(Experiment.attempt > 0, Experiment.pruned.is_distinct_from(PruneScope.ALL))
        with self.database.reading() as session:
            return bool(session.scalar(select(or_(ran, exists().where(Deletion.experiment_id.is_not(None))))))

    def unmeasured(self) -> list[Unmeasured]:
        """Of which experiments the size is not known: those that have changed since, and live ones now and then.

        What is being pruned has its turn after that.
        """
        long_ago = Experiment.disk_measured_at < utc_now() - timedelta(seconds=LIVE_SECONDS)
        query = (
            select(Experiment.id, Experiment.state, Experiment.attempt, Experiment.pruned_at)
            .where(
                or_(Experiment.disk_measured_at.is_(None), and_(Experiment.state.in_(HOLDS_GANG), long_ago)),
                ~exists().where(Pruning.experiment_id == Experiment.id),
            )
            .limit(BATCH)
        )
        with self.database.reading() as session:
            return [Unmeasured(*row) for row in session.execute(query)]

    def note_sizes(self, found: Sequence[Measured]) -> None:
        """Write down what experiments keep, where they are still as they were when they were chosen for it."""
        if not found:
            return
        rows = Experiment.__table__.c
        write = (
            update(Experiment.__table__)  # type: ignore[arg-type]
            .where(
                rows.id == bindparam("of_id"),
                rows.state == bindparam("of_state"),
                rows.attempt == bindparam("of_attempt"),
                rows.pruned_at.is_not_distinct_from(bindparam("was_pruned_at", type_=UtcDateTime())),
            )
            .values(
                disk_bytes=bindparam("now_all"), checkpoint_bytes=bindparam("now_of"), disk_measured_at=bindparam("now")
            )
        )
        values = [
            {
                "of_id": one.of.id,
                "of_state": one.of.state,
                "of_attempt": one.of.attempt,
                "was_pruned_at": one.of.pruned_at,
                "now_all": one.disk_bytes,
                "now_of": one.checkpoint_bytes,
                "now": one.at,
            }
            for one in found
        ]
        with self._writing() as session:
            session.connection().execute(write, values)

    def usage(self, owners: Collection[str]) -> dict[str, int]:
        """Bytes of the files of each of these owners."""
        with self.database.reading() as session:
            return disk_usage(session, owners)

    @contextmanager
    def _writing(self) -> Iterator[Session]:
        with self.database.writing() as session:
            self.leadership.guard(session)
            yield session
