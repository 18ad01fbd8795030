"""What all streams have in common: room is taken before they begin, and they end with the token they began with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Header, Request

from service.api.deps import CallerDep, SeatsDep
from service.api.live.channels import Channel
from service.api.middleware.authentication import STAY_SECONDS, TokenRecheck
from service.api.problems import documented

SnapshotT = TypeVar("SnapshotT")
LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, lt=2**63)]
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-Sent Events; a comment every 15 s shows that the connection lives"},
    **documented(404, 422, 429, 503),
}


def _stay_of(request: Request) -> TokenRecheck:
    stay: TokenRecheck = request.state.stay
    return stay


TheStay = Annotated[TokenRecheck, Depends(_stay_of)]


async def _seated(seats: SeatsDep, caller: CallerDep) -> AsyncIterator[None]:
    """Checked before the stream begins, when no status can be sent any more; given back when it has ended."""
    with seats.seat(caller):
        yield


NEEDS_ROOM = [Depends(_seated)]


async def next_change(channel: Channel[SnapshotT], seen: SnapshotT | None, stay: TokenRecheck) -> SnapshotT | None:
    """What is to be seen, once that is something else; None where there is no more of it, or not for this caller."""
    snapshot = None
    while snapshot is None and await stay.goes_on():
        with suppress(TimeoutError):
            async with asyncio.timeout(STAY_SECONDS):  # nothing may happen for hours: the token is asked all the same
                snapshot = await channel.other_than(seen)
                if snapshot is None:
                    return None
    return snapshot if await stay.goes_on() else None
