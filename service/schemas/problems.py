"""Errors as RFC 9457 has them."""

from pydantic import Field

from service.schemas.base import View


class ErrorItem(View):
    """One thing that is wrong with the request."""

    pointer: str = Field(description="JSON pointer (RFC 6901) into the body, or the name of the parameter")
    detail: str


class Problem(View):
    """RFC 9457: what went wrong, in a form that programs and people can read."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    errors: list[ErrorItem] = Field([])
    legal: list[str] | None = Field(None, description="with 409: the actions that this state allows")
