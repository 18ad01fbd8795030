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

from service.domain.roles import Role
from service.domain.states import State
from workers import tracing

UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # in text: NUL, and halves of characters
STATES = ", ".join(f"'{state}'" for state in State)
ROLES = ", ".join(f"'{role}'" for role in Role)


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
        return None if value is None else UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)


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
        Index("ix_experiments_reason", "state", "reason", "queued_at", "id"),
        Index("ix_experiments_state", "state", "created_at", "id"),
        Index("ix_experiments_desired", "state", "desired"),
        Index("ix_experiments_deadline", "state", "deadline_at"),
        Index("ix_experiments_project", "project", "created_at", "id"),
        Index("ix_experiments_owner", "owner", "created_at", "id"),
        Index("ix_experiments_tracking", "tracking_closed", "state"),
        Index("ix_experiments_name", "name", "created_at", "id"),
        Index("ix_experiments_priority", "priority", "created_at", "id"),
        Index("ix_experiments_started", "started_at", "created_at", "id"),
        Index("ix_experiments_ended", "ended_at", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(ShortWords(32), primary_key=True)
    name: Mapped[str] = mapped_column(ShortWords(128))
    project: Mapped[str] = mapped_column(ShortWords(128))
    description: Mapped[str] = mapped_column(Words, default="", server_default="")
    tags: Mapped[dict[str, Any]]
    owner: Mapped[str] = mapped_column(ShortWords(128), default="local")
    priority: Mapped[int]
    passed: Mapped[int] = mapped_column(default=0)
    spec: Mapped[dict[str, Any]]
    cloned_from: Mapped[str | None] = mapped_column(String(32))  # no foreign key: a copy outlives what it was made of
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
    traceparent: Mapped[str | None] = mapped_column(String(64), default=tracing.traceparent)
    tracking_closed: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    not_before: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class Label(Base):
    """What experiments are found by: a tag, or (with a colon before it) something that the spec names.

    It keeps the experiment's created_at, so that one index has the newest experiments of a label side by side.
    """

    __tablename__ = "labels"
    __table_args__ = (Index("ix_labels_page", "key", "value", "created_at", "experiment_id"),)

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(ShortWords(80), primary_key=True)
    value: Mapped[str] = mapped_column(ShortWords(512))
    created_at: Mapped[datetime]


class Deletion(Base):
    """An experiment whose rows are gone and whose files may still be there; gone itself once they are."""

    __tablename__ = "deletions"

    experiment_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(ShortWords(128))
    owner: Mapped[str] = mapped_column(ShortWords(128))
    by: Mapped[str] = mapped_column(ShortWords(128))
    at: Mapped[datetime] = mapped_column(index=True)


class ClusterRow(Base):
    """What the leading dispatcher last saw of the cluster. One row; the API asks nobody else."""

    __tablename__ = "cluster"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    at: Mapped[datetime]
    reachable: Mapped[bool]
    message: Mapped[str] = mapped_column(Words, default="")
    nodes: Mapped[list[dict[str, Any]]] = mapped_column(JSON)


class Attempt(Base):
    """One try at an experiment by one gang of workers. A finished attempt never changes."""

    __tablename__ = "attempts"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(String(64))
    workers: Mapped[int] = mapped_column(default=1)
    gang: Mapped[str | None] = mapped_column(String(64))  # the one that was chosen for it, warm or new
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
    """A key that a client chose for one submission, and what was submitted under it. Owners do not share keys."""

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(ShortWords(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(index=True)


class ProcessReport(Base):
    """What a process that opens no port has to say: its numbers as Prometheus reads them, and why its work fails."""

    __tablename__ = "process_reports"

    process: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(255))
    at: Mapped[datetime]
    metrics: Mapped[str] = mapped_column(Text)
    trouble: Mapped[str] = mapped_column(Text, default="", server_default="")  # empty while all goes well


class Lease(Base):
    """Who leads. One row for the dispatcher; it must be renewed before it expires."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    token: Mapped[str] = mapped_column(String(64))
    holder: Mapped[str] = mapped_column(String(255))
    expires_at: Mapped[datetime]


class Token(Base):
    """A secret that lets its bearer in. Only its SHA-256 is kept; a token is revoked, never deleted."""

    __tablename__ = "tokens"
    __table_args__ = (CheckConstraint(f"role IN ({ROLES})", name="known_role"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(ShortWords(128))  # whose it is: the owner of what is made with it
    note: Mapped[str] = mapped_column(ShortWords(255), default="")
    role: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str] = mapped_column(String(16))  # its first characters, to recognise it by
    created_at: Mapped[datetime]
    created_by: Mapped[str] = mapped_column(ShortWords(128))
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class AuditEvent(Base):
    """Who did, or tried to do, what: one row for each request that would change something or was not let in."""

    __tablename__ = "audit_events"
    __table_args__ = (Index("ix_audit_events_actor", "actor", "seq"), Index("ix_audit_events_at", "at"))

    seq: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str | None] = mapped_column(ShortWords(128))  # None: whoever it was had no valid token
    token_id: Mapped[str | None] = mapped_column(String(32))
    action: Mapped[str] = mapped_column(ShortWords(128))
    target: Mapped[str] = mapped_column(ShortWords(255), default="")
    status: Mapped[int]
    address: Mapped[str] = mapped_column(ShortWords(64))
    request_id: Mapped[str | None] = mapped_column(ShortWords(128))


class Webhook(Base):
    """Where somebody wants to be told of changes of state."""

    __tablename__ = "webhooks"
    __table_args__ = (Index("ix_webhooks_owner", "owner", "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(ShortWords(128))
    url: Mapped[str] = mapped_column(ShortWords(2048))
    secret: Mapped[str] = mapped_column(String(128))  # an HMAC needs it as it is
    states: Mapped[list[str]]  # the states it waits for; empty: all
    project: Mapped[str | None] = mapped_column(ShortWords(128))
    everyone: Mapped[bool] = mapped_column(default=False)  # other owners' experiments too
    enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]


class WebhookDelivery(Base):
    """One message for one webhook: written in the transaction of the change that it tells of, sent afterwards."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        CheckConstraint("state IN ('pending', 'delivered', 'failed')", name="known_delivery_state"),
        Index("ix_webhook_deliveries_due", "state", "next_at"),
        Index("ix_webhook_deliveries_history", "webhook_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    type: Mapped[str] = mapped_column(String(64))
    experiment_id: Mapped[str | None] = mapped_column(String(32))  # no foreign key: it is told of what is deleted too
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16), default="pending")
    tries: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime]
    status: Mapped[int | None]  # of the last HTTP answer
    error: Mapped[str] = mapped_column(Words, default="")
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
