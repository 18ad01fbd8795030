"""What operators ask of the database: the cluster, counts, reports, and whether it answers."""

from sqlalchemy import func, select

from service.database.disk_usage import disk_usage
from service.database.engine import Database
from service.database.models.experiments import Experiment
from service.database.models.operations import ClusterRow, ProcessReport
from service.domain.states import State
from service.domain.values import utc_now


class Operations:
    """Reads the state of the whole service. Each call is one short transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def cluster(self) -> ClusterRow | None:
        """What the dispatcher last saw of the cluster, if there ever was one."""
        with self.database.reading() as session:
            return session.scalar(select(ClusterRow).order_by(ClusterRow.at.desc()).limit(1))

    def gpus(self) -> float | None:
        """How many GPUs the cluster has; None where no dispatcher sees it."""
        row = self.cluster()
        return sum(float(node["gpus"]) for node in row.nodes) if row is not None and row.reachable else None

    def count_by_state(self) -> dict[State, int]:
        """How many experiments are in each state; every state has a number."""
        query = select(Experiment.state, func.count()).group_by(Experiment.state)
        with self.database.reading() as session:
            counts = {State(state): count for state, count in session.execute(query)}
        return {state: counts.get(state, 0) for state in State}

    def disk_usage(self, owner: str) -> int:
        """Bytes of an owner's files."""
        with self.database.reading() as session:
            return disk_usage(session, [owner])[owner]

    def longest_waiting_seconds(self) -> float:
        """How long the oldest QUEUED experiment has waited; 0 where none does."""
        with self.database.reading() as session:
            oldest = session.scalar(select(func.min(Experiment.queued_at)).where(Experiment.state == State.QUEUED))
        return 0.0 if oldest is None else max(0.0, (utc_now() - oldest).total_seconds())

    def dispatcher_report(self) -> ProcessReport | None:
        """What the dispatcher last told of itself."""
        with self.database.reading() as session:
            return session.get(ProcessReport, "dispatcher")

    def ping(self) -> None:
        """Raise whatever the database raises where it does not answer, or cannot be written to.

        It is written to where that failed the last time: only so will it be known to be well again.
        """
        with self.database.reading() as session:
            session.execute(select(1))
            if session.get_bind().dialect.name == "postgresql":
                is_read_only = session.scalar(select(func.current_setting("transaction_read_only"))) == "on"
                self.database.is_unwritable = self.database.is_unwritable or is_read_only
        if self.database.is_unwritable:
            with self.database.writing() as session:
                session.merge(ProcessReport(process="probe", holder="", at=utc_now(), metrics="", trouble=""))
