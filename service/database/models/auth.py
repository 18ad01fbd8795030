"""Tokens, what was done with them, and links that need none."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from service.database.models.base import Base, ShortWords
from service.domain.roles import Role

ROLES = ", ".join(f"'{role}'" for role in Role)


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


class FileLink(Base):
    """A link to one file of an experiment: gone once it is used. Only the SHA-256 of its secret is kept."""

    __tablename__ = "file_links"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    experiment_id: Mapped[str] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"), index=True)
    path: Mapped[str] = mapped_column(ShortWords(1024))  # relative to the experiment's folder
    token_id: Mapped[str | None] = mapped_column(String(32))  # its maker's; None: made while there was no token
    expires_at: Mapped[datetime] = mapped_column(index=True)


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
