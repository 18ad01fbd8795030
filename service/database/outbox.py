"""What webhooks are to be told, written in the transaction of the change: neither is ever without the other."""

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import and_, bindparam, exists, or_, select
from sqlalchemy.orm import Session

from service.database.models.auth import Token
from service.database.models.base import UtcDateTime
from service.database.models.experiments import Event, Experiment
from service.database.models.studies import Study
from service.database.models.webhooks import Webhook, WebhookDelivery
from service.domain.studies import StudyKind, StudyState

STATE_CHANGED = "experiment.state_changed"
DECIDED, ENDED = "{kind}.decided", "{kind}.ended"  # of a comparison with a result; of any other study
MESSAGE_CHARACTERS = 2000


_VALID = and_(
    Token.name == Webhook.owner,
    Token.revoked_at.is_(None),
    or_(Token.expires_at.is_(None), Token.expires_at > bindparam("at", type_=UtcDateTime())),
)
MAY_BE_TOLD = or_(exists().where(_VALID), ~exists().where(Token.id.is_not(None)))
"""Of a webhook at the time `at`: who was shut out is told nothing more. Where no token was ever made, nobody was."""
_WAITING = select(Webhook).where(  # made once, as it comes with every move
    Webhook.enabled,
    or_(Webhook.everyone, Webhook.owner == bindparam("owner")),
    or_(Webhook.project.is_(None), Webhook.project == bindparam("project")),
    MAY_BE_TOLD,
)


def tell(session: Session, row: Experiment, event: Event) -> None:
    """Leave a delivery for every webhook that waits for this event."""
    for webhook in session.scalars(_WAITING, {"owner": row.owner, "project": row.project, "at": event.at}):
        if not webhook.states or event.to_state in webhook.states:
            session.add(delivery(webhook, STATE_CHANGED, _data(row, event), row.id, at=event.at))


def tell_of_study(session: Session, row: Study, *, at: datetime) -> None:
    """Leave a delivery for every webhook that waits for the end of a study in this state."""
    is_decided = row.state == StudyState.SUCCEEDED and row.kind == StudyKind.COMPARISON
    kind = (DECIDED if is_decided else ENDED).format(kind=row.kind)
    for webhook in session.scalars(_WAITING, {"owner": row.owner, "project": row.project, "at": at}):
        if not webhook.states or row.state in webhook.states:
            session.add(delivery(webhook, kind, _data_of_study(row), None, at=at))


def delivery(
    webhook: Webhook, kind: str, data: dict[str, Any], experiment_id: str | None, *, at: datetime
) -> WebhookDelivery:
    """A message that is due at once."""
    return WebhookDelivery(
        id=f"msg_{secrets.token_hex(12)}",
        webhook_id=webhook.id,
        type=kind,
        experiment_id=experiment_id,
        payload={"type": kind, "timestamp": at.isoformat(), "data": data},
        next_at=at,
        created_at=at,
    )


def _data_of_study(row: Study) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "project": row.project,
        "owner": row.owner,
        "state": row.state,
        "reason": row.reason,
        "message": row.message[:MESSAGE_CHARACTERS],
        "path": f"/v1/{row.kind}s/{row.id}",
    }


def _data(row: Experiment, event: Event) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "project": row.project,
        "owner": row.owner,
        "seq": event.seq,
        "attempt": event.attempt,
        "from_state": event.from_state,
        "to_state": event.to_state,
        "reason": event.reason,
        "message": event.message[:MESSAGE_CHARACTERS],
        "by": event.by,
        "path": f"/v1/experiments/{row.id}",
    }
