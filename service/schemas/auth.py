"""What the API takes and answers about tokens and callers."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.domain.roles import Role
from service.schemas.base import View

Name = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$",
        description="whose token it is: the owner of what is made with it; several tokens may bear one name",
        examples=["ada"],
    ),
]


class CallerView(View):
    """Whom the server takes the caller for."""

    name: str = Field(description="`local` on a server that has no tokens")
    role: Role
    token_id: str | None
    disk_bytes: int = Field(0, description="of the files of all experiments of this name, as they were last measured")
    disk_quota_bytes: int | None = Field(
        None, description="with as many, nothing new of this name is taken or started; null: no limit"
    )


class TokenRequest(BaseModel):
    """The token that is wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    role: Role = Field(Role.USER, description="viewer: sees all; user: changes their own; admin: changes all")
    note: str = Field("", max_length=255, description="what it is for")
    expires_days: int | None = Field(None, ge=1, le=3650, strict=True, description="left out: it never expires")


class TokenView(View):
    """A token without its secret."""

    id: str
    name: str
    role: Role
    note: str
    hint: str = Field(description="its first characters, to recognise it by")
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="to the minute; null where it never was")


class NewToken(TokenView):
    """A token with its secret, which is shown this once."""

    secret: str = Field(description="send it as `Authorization: Bearer …`; it is stored nowhere")

    @classmethod
    def of(cls, token: TokenView, secret: str) -> "NewToken":
        """A token that was just made, with its secret."""
        return cls(**token.model_dump(), secret=secret)


class TokenList(View):
    """Every token there ever was, the newest first."""

    items: list[TokenView]


class AuditView(View):
    """One thing that somebody did, or tried to do."""

    seq: int
    at: datetime
    actor: str | None = Field(description="the caller's name; null where there was no good token")
    token_id: str | None
    action: str = Field(description="method and route", examples=["POST /v1/experiments/{experiment_id}/cancel"])
    target: str = Field(description="what it was done to: the path, or where the new thing is")
    status: int = Field(description="HTTP status of the answer")
    address: str = Field(description="where the request came from")
    request_id: str | None = Field(description="as in the log and in the answer's X-Request-ID")


class AuditPage(View):
    """Some audit events, the newest first."""

    items: list[AuditView]
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null on the last page")
