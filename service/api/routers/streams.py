"""Logs and events as they happen: plain text by offset, and Server-Sent Events that resume where they were cut."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.api.deps import GUARDED, CallerDep, ExperimentDep, ExperimentFilesDep, LiveUpdatesDep, SettingsDep
from service.api.live_updates import Channel, Snapshot
from service.api.middleware.authentication import STAY_SECONDS, TokenRecheck
from service.api.problems import documented
from service.domain.scheduling_spec import load_scheduling_spec
from service.errors import InvalidField
from service.experiments import logs

router = APIRouter(
    prefix="/v1/experiments/{experiment_id}",
    tags=["logs and events"],
    dependencies=GUARDED,
    responses=documented(401, 403),
)
Rank = Annotated[int, Query(ge=0, le=4095, description="which worker's log")]
Offset = Annotated[int, Query(ge=0, lt=2**63)]
LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, lt=2**63)]


def _rank_of(row: ExperimentDep, rank: Rank = 0) -> int:
    """The rank, checked before the stream begins: once it has begun, no status can be sent."""
    stored, damage = load_scheduling_spec(row.spec)
    _, workers = stored.workers
    if rank >= workers and not damage:
        raise InvalidField("rank", f"this experiment has {workers} worker{'s' * (workers > 1)}, counted from 0")
    return rank


def _stay_of(request: Request) -> TokenRecheck:
    stay: TokenRecheck = request.state.stay
    return stay


TheRank = Annotated[int, Depends(_rank_of)]
TheStay = Annotated[TokenRecheck, Depends(_stay_of)]


async def _seated(feeds: LiveUpdatesDep, caller: CallerDep) -> AsyncIterator[None]:
    """Checked before the stream begins, too; given back when it has ended."""
    with feeds.seat(caller):
        yield


async def _next(channel: Channel, seen: Snapshot | None, stay: TokenRecheck) -> Snapshot | None:
    """What is to be seen, once that is something else; None where there is no more of it, or not for this caller."""
    snapshot = None
    while snapshot is None and await stay.goes_on():
        with suppress(TimeoutError):
            async with asyncio.timeout(STAY_SECONDS):  # nothing may happen for hours: the token is asked all the same
                snapshot = await channel.other_than(seen)
                if snapshot is None:
                    return None
    return snapshot if await stay.goes_on() else None


NEEDS_ROOM = [Depends(_seated)]
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-Sent Events; a comment every 15 s shows that the connection lives"},
    **documented(404, 422, 429, 503),
}


@router.get("/logs", response_class=PlainTextResponse, responses=documented(404, 410, 422))
def read_logs(row: ExperimentFilesDep, settings: SettingsDep, rank: TheRank, offset: Offset = 0) -> PlainTextResponse:
    """Read a worker's log from a byte offset on; `X-Next-Offset` says where to go on."""
    chunk = logs.read(settings.storage_root, row.id, row.attempt, rank=rank, offset=offset)
    headers = {"X-Next-Offset": str(chunk.next_offset)}
    return PlainTextResponse(chunk.data, media_type="text/plain; charset=utf-8", headers=headers)


@router.get(
    "/logs/stream",
    response_class=EventSourceResponse,
    dependencies=NEEDS_ROOM,
    responses=ANSWERS | documented(410),
)
async def stream_logs(
    row: ExperimentFilesDep, feeds: LiveUpdatesDep, stay: TheStay, rank: TheRank, last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Follow a worker's log; `id` is the byte offset behind the lines, `event: end` carries the final state."""
    offset, snapshot = last_event_id or 0, None
    async with feeds.watching(row.id, rank) as channel:
        while (snapshot := await _next(channel, snapshot, stay)) is not None:
            while (
                chunk := await feeds.lines(channel, snapshot, rank=rank, offset=offset)
            ).data and await stay.goes_on():
                offset = chunk.next_offset
                for piece in logs.in_messages(chunk):
                    yield ServerSentEvent(raw_data=piece.text.removesuffix("\n"), id=str(piece.next_offset))
            if snapshot.ended:
                yield _end(snapshot)
                return


@router.get(
    "/events/stream",
    response_class=EventSourceResponse,
    dependencies=NEEDS_ROOM,
    responses=ANSWERS,
)
async def stream_events(
    row: ExperimentDep, feeds: LiveUpdatesDep, stay: TheStay, last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Follow the changes of state; `id` is the event's `seq`, `event: end` carries the final state."""
    seen, snapshot = last_event_id or 0, None
    async with feeds.watching(row.id) as channel:
        while (snapshot := await _next(channel, snapshot, stay)) is not None:
            for event in await feeds.events(channel, after_seq=seen):
                seen = event.seq
                yield ServerSentEvent(data=event, event="move", id=str(seen))
            if snapshot.ended:
                yield _end(snapshot)
                return


def _end(snapshot: Snapshot) -> ServerSentEvent:
    return ServerSentEvent(data={"state": snapshot.experiment.state, "reason": snapshot.experiment.reason}, event="end")
