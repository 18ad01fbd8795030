"""The rows. The database is the queue and the truth; Ray, MLflow and files are observations compared with it."""

import re
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from service.states import State

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
STATES = ", ".join(f"'{state}'" for state in State)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time in Python, a plain one in the database: SQLite keeps no zone."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Aware to plain."""
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """Plain to aware."""
        return None if value is None else value.replace(tzinfo=UTC)


class Words(TypeDecorator[str]):
    """Text from outside. What PostgreSQL or UTF-8 cannot hold (NUL, half a surrogate pair) becomes U+FFFD."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        """Whatever Python can hold to what a database can."""
        return None if value is None else _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)


class ShortWords(Words):
    """The same with a greatest length."""

    impl = String  # type: ignore[assignment]
    cache_ok = True


class Base(DeclarativeBase):
    """All tables."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[str]: JSON,
        State: String(16),
    }


class Experiment(Base):
    """One experiment: what was asked for, where it is, and what was last seen of it."""

    __tablename__ = "experiments"
    __table_args__ = (
        CheckConstraint(f"state IN ({STATES})", name="known_state"),
        CheckConstraint("desired IN ('run', 'pause', 'cancel', 'yield')", name="known_desire"),
        Index("ix_experiments_page", "created_at", "id"),
        Index("ix_experiments_queue", "state", "owner", text("priority DESC"), "queued_at", "id"),
        Index("ix_experiments_state", "state", "created_at", "id"),
        Index("ix_experiments_desired", "state", "desired"),
        Index("ix_experiments_deadline", "state", "deadline_at"),
        Index("ix_experiments_project", "project", "created_at", "id"),
        Index("ix_experiments_tracking", "tracking_closed", "state"),
    )

    id: Mapped[str] = mapped_column(ShortWords(32), primary_key=True)
    name: Mapped[str] = mapped_column(ShortWords(128))
    project: Mapped[str] = mapped_column(ShortWords(128))
    tags: Mapped[dict[str, Any]]
    owner: Mapped[str] = mapped_column(ShortWords(128), default="local")
    priority: Mapped[int]
    passed: Mapped[int] = mapped_column(default=0)
    spec: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    desired: Mapped[str] = mapped_column(String(16), default="run")
    reason: Mapped[str | None] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Words, default="")
    attempt: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)
    free_retries: Mapped[int] = mapped_column(default=0)
    charged_retries: Mapped[int] = mapped_column(default=0)
    progress: Mapped[dict[str, Any]]
    summary: Mapped[dict[str, Any]]
    mlflow_run_id: Mapped[str | None] = mapped_column(String(64))
    tracking_closed: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    not_before: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Attempt(Base):
    """One try at an experiment by one gang of workers. A finished attempt never changes."""

    __tablename__ = "attempts"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(String(64))
    workers: Mapped[int] = mapped_column(default=1)
    reason: Mapped[str | None] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Words, default="")
    resumed_from_step: Mapped[int | None]
    last_step: Mapped[int] = mapped_column(default=0)
    node_ids: Mapped[list[str]] = mapped_column(default=list)
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class LegalMove(Base):
    """The table of `states.MOVES`, in the database: an event of any other move is refused by its foreign key."""

    __tablename__ = "legal_moves"

    from_state: Mapped[str] = mapped_column(String(16), primary_key=True)
    to_state: Mapped[str] = mapped_column(String(16), primary_key=True)


class Event(Base):
    """One change of state, written in the same transaction as the change."""

    __tablename__ = "events"
    __table_args__ = (
        ForeignKeyConstraint(["from_state", "to_state"], ["legal_moves.from_state", "legal_moves.to_state"]),
        Index("ix_events_experiment", "experiment_id", "seq"),
    )

    seq: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str | None] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Words, default="")
    by: Mapped[str] = mapped_column(String(255))
    at: Mapped[datetime]


class IdempotencyKey(Base):
    """A key that a client chose for one submission, and what was submitted under it."""

    __tablename__ = "idempotency_keys"

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(index=True)


class Lease(Base):
    """Who leads. One row for the dispatcher; it must be renewed before it expires."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    token: Mapped[str] = mapped_column(String(64))
    holder: Mapped[str] = mapped_column(String(255))
    expires_at: Mapped[datetime]
