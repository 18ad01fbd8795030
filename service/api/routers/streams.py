"""Logs and events as they happen: plain text by offset, and Server-Sent Events that resume where they were cut."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.api.deps import GUARDED, ExperimentDep, ExperimentFilesDep, SettingsDep, the_apps
from service.api.live.experiments import ExperimentUpdates, Snapshot
from service.api.live.following import ANSWERS, NEEDS_ROOM, LastEventId, TheStay, next_change
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
ExperimentUpdatesDep = Annotated[ExperimentUpdates, the_apps("experiment_updates")]
Rank = Annotated[int, Query(ge=0, le=4095, description="which worker's log")]
Offset = Annotated[int, Query(ge=0, lt=2**63)]


def _rank_of(row: ExperimentDep, rank: Rank = 0) -> int:
    """The rank, checked before the stream begins: once it has begun, no status can be sent."""
    stored, damage = load_scheduling_spec(row.spec)
    _, workers = stored.workers
    if rank >= workers and not damage:
        raise InvalidField("rank", f"this experiment has {workers} worker{'s' * (workers > 1)}, counted from 0")
    return rank


TheRank = Annotated[int, Depends(_rank_of)]


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
    row: ExperimentFilesDep,
    updates: ExperimentUpdatesDep,
    stay: TheStay,
    rank: TheRank,
    last_event_id: LastEventId = None,
) -> AsyncIterator[ServerSentEvent]:
    """Follow a worker's log; `id` is the byte offset behind the lines, `event: end` carries the final state."""
    offset, snapshot = last_event_id or 0, None
    async with updates.watching(row.id, rank) as channel:
        while (snapshot := await next_change(channel, snapshot, stay)) is not None:
            while (
                chunk := await updates.lines(channel, snapshot, rank=rank, offset=offset)
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
    row: ExperimentDep, updates: ExperimentUpdatesDep, stay: TheStay, last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Follow the changes of state; `id` is the event's `seq`, `event: end` carries the final state."""
    seen, snapshot = last_event_id or 0, None
    async with updates.watching(row.id) as channel:
        while (snapshot := await next_change(channel, snapshot, stay)) is not None:
            for event in await updates.events(channel, after_seq=seen):
                seen = event.seq
                yield ServerSentEvent(data=event, event="move", id=str(seen))
            if snapshot.ended:
                yield _end(snapshot)
                return


def _end(snapshot: Snapshot) -> ServerSentEvent:
    return ServerSentEvent(data={"state": snapshot.experiment.state, "reason": snapshot.experiment.reason}, event="end")
