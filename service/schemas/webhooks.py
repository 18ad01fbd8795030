"""What the API takes and answers about webhooks."""

from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.domain.states import State
from service.schemas.base import View


def _usable_url(url: str) -> str:
    """A URL that names its host plainly and hides nothing in it."""
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise ValueError("must be plain ASCII: no spaces, other scripts percent-encoded or in punycode")
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("must be an https:// or http:// URL with a host")
    if "@" in parts.netloc or parts.fragment:
        raise ValueError("must hold no user name and no fragment")
    if parts.port == 0:
        raise ValueError("must name a port that exists")
    return url


Url = Annotated[
    str,
    Field(min_length=1, max_length=2048, examples=["https://example.org/hooks/cbam"]),
    AfterValidator(_usable_url),
]
States = Annotated[list[State], Field(max_length=len(State), description="the states it waits for; empty: all")]
Project = Annotated[str | None, Field(max_length=128, pattern="^[^\0]*$", description="only this project; null: all")]


class WebhookRequest(BaseModel):
    """The webhook that is wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Url
    states: States = []
    project: Project = None
    everyone: bool = Field(False, strict=True, description="other owners' experiments too")


class WebhookChange(BaseModel):
    """What is to be different; what is left out stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Url = ""
    states: States = []
    project: Project = None
    everyone: bool = Field(False, strict=True)
    enabled: bool = Field(True, strict=True, description="false: it is told nothing until it is enabled again")


class WebhookView(View):
    """A webhook without its secret."""

    id: str
    owner: str
    url: str
    states: list[State]
    project: str | None
    everyone: bool
    enabled: bool = Field(description="the server disables one whose receiver answers 410 Gone")
    created_at: datetime


class NewWebhook(WebhookView):
    """A webhook with its secret, which is shown this once."""

    secret: str = Field(description="`whsec_` and the base64 of the key with which messages are signed")


class WebhookList(View):
    """Some webhooks, the newest first."""

    items: list[WebhookView]


class DeliveryView(View):
    """One message to a webhook, and how far it has come."""

    id: str = Field(description="the message's `webhook-id`: the same at every try")
    type: str
    experiment_id: str | None
    state: Literal["pending", "delivered", "failed"]
    tries: int
    status: int | None = Field(description="HTTP status of the last answer")
    error: str = Field(description="why the last try failed")
    created_at: datetime
    next_at: datetime = Field(description="when a pending one is tried next")
    ended_at: datetime | None


class DeliveryList(View):
    """The last messages, the newest first."""

    items: list[DeliveryView]
