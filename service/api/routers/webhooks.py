"""Webhooks over HTTP: have a URL told of changes of state."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from service.api.bodies import BoundedRoute
from service.api.deps import GUARDED, CallerDep, Id, WebhooksDep
from service.api.problems import documented
from service.database.models.webhooks import Webhook
from service.domain.filters import PAGE_LIMIT
from service.schemas.webhooks import (
    DeliveryList,
    DeliveryView,
    NewWebhook,
    WebhookChange,
    WebhookList,
    WebhookRequest,
    WebhookView,
)

router = APIRouter(
    prefix="/v1/webhooks",
    tags=["webhooks"],
    dependencies=GUARDED,
    route_class=BoundedRoute,
    responses=documented(401, 403, 422),
)
DeliveryId = Annotated[str, Path(min_length=1, max_length=32, pattern="^msg_[0-9a-f]+$")]


def _mine(webhook_id: Id, webhooks: WebhooksDep, caller: CallerDep) -> Webhook:
    return webhooks.get(webhook_id, caller)


Mine = Annotated[Webhook, Depends(_mine)]


@router.post("", status_code=201, responses=documented(400, 409, 413, 415))
def create(wanted: WebhookRequest, response: Response, webhooks: WebhooksDep, caller: CallerDep) -> NewWebhook:
    """Have a URL told of changes of state. The secret that signs the messages is in this answer and no other."""
    row = webhooks.create(wanted, caller)
    response.headers["Location"] = f"/v1/webhooks/{row.id}"
    return NewWebhook.model_validate(row)


@router.get("")
def list_webhooks(webhooks: WebhooksDep, caller: CallerDep) -> WebhookList:
    """List your webhooks; an admin sees everybody's."""
    return WebhookList(items=[WebhookView.model_validate(row) for row in webhooks.seen_by(caller)])


@router.get("/{webhook_id}", responses=documented(404))
def show(row: Mine) -> WebhookView:
    """Show one webhook."""
    return WebhookView.model_validate(row)


@router.patch("/{webhook_id}", responses=documented(400, 404, 413, 415))
def change(row: Mine, wanted: WebhookChange, webhooks: WebhooksDep) -> WebhookView:
    """Change what is given, and leave the rest as it is."""
    return WebhookView.model_validate(webhooks.change(row, wanted))


@router.delete("/{webhook_id}", status_code=204, responses=documented(404))
def remove(row: Mine, webhooks: WebhooksDep) -> None:
    """Remove a webhook, and what it was still to be told."""
    webhooks.remove(row)


@router.post("/{webhook_id}/test", status_code=202, responses=documented(404, 409))
def test(row: Mine, response: Response, webhooks: WebhooksDep) -> DeliveryView:
    """Send a message that says nothing, on the way that all messages go; the Location tells how it fared."""
    message = webhooks.test(row)
    response.headers["Location"] = f"/v1/webhooks/{row.id}/deliveries/{message.id}"
    return DeliveryView.model_validate(message)


@router.get("/{webhook_id}/deliveries", responses=documented(404))
def deliveries(
    row: Mine, webhooks: WebhooksDep, limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50
) -> DeliveryList:
    """Show the last messages to a webhook, the newest first. They are kept for 30 days."""
    return DeliveryList(
        items=[DeliveryView.model_validate(message) for message in webhooks.deliveries(row, limit=limit)]
    )


@router.get("/{webhook_id}/deliveries/{delivery_id}", responses=documented(404))
def show_delivery(row: Mine, delivery_id: DeliveryId, webhooks: WebhooksDep) -> DeliveryView:
    """Show one message, and how far it has come."""
    return DeliveryView.model_validate(webhooks.delivery(row, delivery_id))
