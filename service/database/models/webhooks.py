"""Webhooks, and the messages still to be delivered."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    String,
)
from sqlalchemy.orm import Mapped, mapped_column

from service.database.models.base import Base, ShortWords, Words


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
