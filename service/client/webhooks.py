"""The client's calls about webhooks."""

from collections.abc import Sequence

from service.client.transport import Transport, path
from service.domain.states import State
from service.schemas.webhooks import DeliveryList, DeliveryView, NewWebhook, WebhookList, WebhookView

ROOT = "/v1/webhooks"


class WebhookCalls:
    """Part of `Client`."""

    wire: Transport

    def create_webhook(
        self, url: str, *, states: Sequence[State] = (), project: str | None = None, everyone: bool = False
    ) -> NewWebhook:
        """Have a URL told of changes of state. The secret that signs the messages is in this answer and no other."""
        wanted = {"url": url, "states": [*states], "project": project, "everyone": everyone}
        return self.wire.post(NewWebhook, ROOT, json=wanted)

    def webhooks(self) -> Sequence[WebhookView]:
        """Yours; an admin's answer holds everybody's."""
        return self.wire.get(WebhookList, ROOT).items

    def enable_webhook(self, webhook_id: str, enabled: bool = True) -> WebhookView:
        """Have it told again, or nothing for the time being."""
        answer = self.wire.send("PATCH", path(ROOT, webhook_id), again=True, json={"enabled": enabled})
        return WebhookView.model_validate_json(answer.content)

    def remove_webhook(self, webhook_id: str) -> None:
        """Remove it, and what it was still to be told."""
        self.wire.send("DELETE", path(ROOT, webhook_id))

    def test_webhook(self, webhook_id: str) -> DeliveryView:
        """Send a message that says nothing; `webhook_delivery` tells how it fared."""
        return self.wire.post(DeliveryView, path(ROOT, webhook_id, "test"))

    def webhook_delivery(self, webhook_id: str, delivery_id: str) -> DeliveryView:
        """One message, and how far it has come."""
        return self.wire.get(DeliveryView, path(ROOT, webhook_id, "deliveries", delivery_id))

    def webhook_deliveries(self, webhook_id: str, *, limit: int = 50) -> Sequence[DeliveryView]:
        """The last messages, the newest first."""
        return self.wire.get(DeliveryList, path(ROOT, webhook_id, "deliveries"), params={"limit": limit}).items
