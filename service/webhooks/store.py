"""Webhooks: made, changed, removed, tested; each belongs to its owner, and only admins see the others'."""

import secrets
from base64 import b64encode
from datetime import timedelta

from sqlalchemy import func, select

from service.database.engine import Database
from service.database.models.webhooks import Webhook, WebhookDelivery
from service.database.outbox import delivery
from service.domain.roles import Caller, Role
from service.domain.values import new_id, utc_now
from service.errors import TooManyTests, TooManyWebhooks, WebhookNotFound
from service.schemas.webhooks import WebhookChange, WebhookRequest

MOST_OF_ONE_OWNER = 20
MOST_TESTS_AN_HOUR = 20
SECRET_BYTES = 32
TEST = "webhook.test"


class WebhookStore:
    """The webhooks of one database. A URL may hold a secret of its own, so other owners' are as if they were not."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, wanted: WebhookRequest, caller: Caller) -> Webhook:
        """Make one, with a secret. Raises TooManyWebhooks."""
        row = Webhook(
            **wanted.model_dump(mode="json"),
            id=new_id(),
            owner=caller.name,
            secret="whsec_" + b64encode(secrets.token_bytes(SECRET_BYTES)).decode(),
            created_at=utc_now(),
        )
        with self.database.writing_alone(f"webhooks of {caller.name}") as session:
            count = session.scalar(select(func.count()).select_from(Webhook).where(Webhook.owner == caller.name))
            if (count or 0) >= MOST_OF_ONE_OWNER:
                raise TooManyWebhooks(f"{caller.name} has {count} webhooks, and nobody may have more; remove one")
            session.add(row)
        return row

    def seen_by(self, caller: Caller) -> list[Webhook]:
        """The caller's, or all of them for an admin; the newest first."""
        query = select(Webhook).order_by(Webhook.created_at.desc(), Webhook.id.desc())
        if not caller.is_at_least(Role.ADMIN):
            query = query.where(Webhook.owner == caller.name)
        with self.database.reading() as session:
            return list(session.scalars(query))

    def get(self, webhook_id: str, caller: Caller) -> Webhook:
        """One. Raises WebhookNotFound, also where it is somebody else's."""
        with self.database.reading() as session:
            row = session.get(Webhook, webhook_id)
        if row is None or not (row.owner == caller.name or caller.is_at_least(Role.ADMIN)):
            raise WebhookNotFound(f"there is no webhook {webhook_id!r}")
        return row

    def change(self, row: Webhook, change: WebhookChange) -> Webhook:
        """Change what was given. Raises WebhookNotFound where it is gone meanwhile."""
        with self.database.writing() as session:
            current = session.get(Webhook, row.id, with_for_update=True)
            if current is None:
                raise WebhookNotFound
            for name, value in change.model_dump(mode="json", exclude_unset=True).items():
                setattr(current, name, value)
            return current

    def remove(self, row: Webhook) -> None:
        """Remove it, and what it was still to be told."""
        with self.database.writing() as session:
            if (current := session.get(Webhook, row.id)) is not None:
                session.delete(current)

    def test(self, row: Webhook) -> WebhookDelivery:
        """Leave a message that says nothing, to see whether it arrives. Raises TooManyTests."""
        message = delivery(row, TEST, {"webhook_id": row.id}, None, at=utc_now())
        lately = (
            select(func.count())
            .select_from(WebhookDelivery)
            .where(WebhookDelivery.webhook_id == row.id, WebhookDelivery.type == TEST)
            .where(WebhookDelivery.created_at > message.created_at - timedelta(hours=1))
        )
        with self.database.writing_alone(f"tests of webhook {row.id}") as session:
            if (session.scalar(lately) or 0) >= MOST_TESTS_AN_HOUR:
                raise TooManyTests(f"a webhook is tested at most {MOST_TESTS_AN_HOUR} times an hour")
            session.add(message)
        return message

    def deliveries(self, row: Webhook, *, limit: int) -> list[WebhookDelivery]:
        """Its last messages, the newest first."""
        query = (
            select(WebhookDelivery)
            .where(WebhookDelivery.webhook_id == row.id)
            .order_by(WebhookDelivery.created_at.desc(), WebhookDelivery.id.desc())
            .limit(limit)
        )
        with self.database.reading() as session:
            return list(session.scalars(query))

    def delivery(self, row: Webhook, delivery_id: str) -> WebhookDelivery:
        """One message. Raises WebhookNotFound."""
        with self.database.reading() as session:
            found = session.get(WebhookDelivery, delivery_id)
        if found is None or found.webhook_id != row.id:
            raise WebhookNotFound(f"webhook {row.id} has no message {delivery_id!r}")
        return found
