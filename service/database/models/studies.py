"""The rows of studies: comparisons and sweeps, which are many experiments and a decision about them."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from service.database.models.base import Base, ShortWords, Words
from service.domain.studies import StudyState

STATES = ", ".join(f"'{state}'" for state in StudyState)


class Study(Base):
    """One study: what was asked for, and where it is. `spec` is as it was sent, and never changes."""

    __tablename__ = "studies"
    __table_args__ = (
        CheckConstraint(f"state IN ({STATES})", name="known_study_state"),
        CheckConstraint("desired IN ('run', 'pause', 'cancel')", name="known_study_desire"),
        Index("ix_studies_page", "kind", "created_at", "id"),
        Index("ix_studies_owner", "owner", "created_at", "id"),
        Index("ix_studies_state", "state", "created_at", "id"),
        Index("ix_studies_replicates", "replicates"),
    )

    id: Mapped[str] = mapped_column(ShortWords(32), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    name: Mapped[str] = mapped_column(ShortWords(128))
    project: Mapped[str] = mapped_column(ShortWords(128))
    description: Mapped[str] = mapped_column(Words, default="")
    owner: Mapped[str] = mapped_column(ShortWords(128))
    spec: Mapped[dict[str, Any]]
    specs: Mapped[dict[str, Any]]  # of each variant the whole spec of its experiments, but for name and seed; or "base"
    limits: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # of a sweep, as they are now
    seed: Mapped[int] = mapped_column(BigInteger)
    seeds: Mapped[int]  # that are wanted now
    seeds_chosen: Mapped[bool] = mapped_column(default=False)  # by the precision of the first ones
    seeds_added: Mapped[bool] = mapped_column(default=False)  # after results had been seen
    replicates: Mapped[str | None] = mapped_column(String(32))  # the comparison that it repeats, there still or not
    chosen: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # its runs were there before it
    classes: Mapped[int | None]  # of the dataset, once that is known: chance is one of them
    state: Mapped[str] = mapped_column(String(16), default=StudyState.ACTIVE)
    desired: Mapped[str] = mapped_column(String(16), default="run")
    reason: Mapped[str | None] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Words, default="")
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class Trial(Base):
    """One experiment of a study, or one that was there before it; it outlasts it.

    That one was deleted counts in the result.

    Of a sweep `variant` is the method and `block` the number of the proposal.
    """

    __tablename__ = "trials"
    __table_args__ = (
        UniqueConstraint("study_id", "variant", "block", name="uq_trials_place"),
        Index("ix_trials_experiment", "experiment_id"),
        Index(
            "uq_trials_grid",
            "study_id",
            "params_hash",
            "seed",
            unique=True,
            sqlite_where=text("variant = 'grid'"),
            postgresql_where=text("variant = 'grid'"),
        ),
    )

    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    experiment_id: Mapped[str] = mapped_column(String(32))
    variant: Mapped[str] = mapped_column(ShortWords(64))
    block: Mapped[int]  # of seeds, from 0; PROBE_BLOCK: it is no training, but the probe of its variant's cost
    seed: Mapped[int] = mapped_column(BigInteger)
    observed_at: Mapped[datetime | None]  # what it reached was read; None: not yet, or it reached nothing
    correct: Mapped[int | None]  # images that were classified right, None where that could not be read
    images: Mapped[int | None]  # of them in all
    observed: Mapped[dict[str, Any] | None] = mapped_column(
        JSON(none_as_null=True)
    )  # image by image; a probe's numbers

    # of a sweep alone
    params: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    params_hash: Mapped[str | None] = mapped_column(String(64))
    informed_by: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))  # numbers of trials
    outcome: Mapped[str | None] = mapped_column(String(32))  # what it ended with
    place: Mapped[int | None]  # in the order in which trials ended
    value: Mapped[float | None] = mapped_column(Double)
    why: Mapped[str | None] = mapped_column(Words)  # the outcome in words


class StudyRun(Base):
    """What MLflow has of a study. It outlasts the study: MLflow is to hear that it was deleted."""

    __tablename__ = "study_runs"

    study_id: Mapped[str] = mapped_column(String(32), primary_key=True)  # no foreign key
    creation: Mapped[str] = mapped_column(String(32))  # the word that its runs are made with, and found by
    experiment_id: Mapped[str | None] = mapped_column(String(64))  # MLflow's experiment that they are in
    run_id: Mapped[str | None] = mapped_column(String(64))  # the parent run
    summaries: Mapped[dict[str, Any]] = mapped_column(default=dict)  # by variant: its summary run, and what that is of
    linked: Mapped[list[str]] = mapped_column(default=list)  # runs that name the parent run
    told: Mapped[str] = mapped_column(String(255), default="")  # of which state of the rows
    finished: Mapped[bool] = mapped_column(default=False)  # there is nothing more to tell of this version
    version: Mapped[int] = mapped_column(default=0)  # of the study


class LegalStudyMove(Base):
    """The table of `STUDY_MOVES`: a decision to make any other move is refused by its foreign key."""

    __tablename__ = "legal_study_moves"

    from_state: Mapped[str] = mapped_column(String(16), primary_key=True)
    to_state: Mapped[str] = mapped_column(String(16), primary_key=True)


class Decision(Base):
    """What was decided of a study, in the transaction that carried it out; never changed."""

    __tablename__ = "decisions"
    __table_args__ = (
        ForeignKeyConstraint(
            ["from_state", "to_state"], ["legal_study_moves.from_state", "legal_study_moves.to_state"]
        ),
        Index("ix_decisions_study", "study_id", "seq"),
    )

    seq: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(16))  # move, trials, probe, seeds, wish, asked; of sweeps see rows.py
    from_state: Mapped[str | None] = mapped_column(String(16))
    to_state: Mapped[str | None] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
    by: Mapped[str] = mapped_column(String(255))
    at: Mapped[datetime]
