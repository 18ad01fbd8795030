"""The rows. The database is the queue and the truth; Ray, MLflow and files are observations compared with it."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from cbam_core.semantics import CURRENT
from service.database.models.base import Base, ShortWords, Words
from service.domain.states import State
from workers import tracing

STATES = ", ".join(f"'{state}'" for state in State)


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
        Index("ix_experiments_disk", "owner", "disk_bytes"),
        Index("ix_experiments_measured", "disk_measured_at"),
        Index("ix_experiments_study", "study_id", "created_at", "id"),
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
    semantics: Mapped[int] = mapped_column(default=CURRENT, server_default="1")  # see cbam_core/semantics.py
    cloned_from: Mapped[str | None] = mapped_column(String(32))  # no foreign key: a copy outlives what it was made of
    study_id: Mapped[str | None] = mapped_column(String(32))  # no foreign key: it may outlast its study
    probed_against: Mapped[dict[str, Any] | None] = mapped_column(
        JSON(none_as_null=True)
    )  # the control's spec: a probe
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
    mlflow_experiment_id: Mapped[str | None] = mapped_column(String(64))  # that the run is in
    traceparent: Mapped[str | None] = mapped_column(String(64), default=tracing.traceparent)
    tracking_closed: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    queued_at: Mapped[datetime]
    not_before: Mapped[datetime | None]
    deadline_at: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    disk_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    checkpoint_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # of them
    disk_measured_at: Mapped[datetime | None]  # None: not since an attempt ended, or files were pruned
    pruned: Mapped[str | None] = mapped_column(String(16))  # a `PruneScope`
    pruned_at: Mapped[datetime | None]


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
    disk_bytes: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default="0"
    )  # its owner's until they are gone


class Pruning(Base):
    """An experiment of whose files some are to go; gone itself once they are, or the experiment is deleted."""

    __tablename__ = "prunings"

    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), primary_key=True)
    what: Mapped[str] = mapped_column(String(16))
    at: Mapped[datetime] = mapped_column(index=True)


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
    """A key that a client chose for one submission, and what was submitted under it. Owners do not share keys.

    It outlasts the experiment, or the study: a submission that is sent again after a deletion must not train once more.
    """

    __tablename__ = "idempotency_keys"

    owner: Mapped[str] = mapped_column(ShortWords(128), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    experiment_id: Mapped[str] = mapped_column(String(32))  # or a study's; no foreign key: it is told that it is gone
    created_at: Mapped[datetime] = mapped_column(index=True)
