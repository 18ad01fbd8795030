"""Logs and events as they happen: plain text by offset, and Server-Sent Events that resume where they were cut."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service import logs
from service.deps import GUARDED, Closing, Existing, TheSettings, TheStore
from service.errors import InvalidField
from service.http_errors import documented
from service.models import Experiment
from service.schemas import EventView
from service.states import TERMINAL, State
from service.store import Store

router = APIRouter(
    prefix="/v1/experiments/{experiment_id}",
    tags=["logs and events"],
    dependencies=GUARDED,
    responses=documented(401, 403),
)
LOOK_SECONDS = 0.5
Rank = Annotated[int, Query(ge=0, le=4095, description="which worker's log")]
Offset = Annotated[int, Query(ge=0, lt=2**63)]
LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0, lt=2**63)]


def _rank_of(row: Existing, rank: Rank = 0) -> int:
    """The rank, checked before the stream begins: once it has begun, no status can be sent."""
    wanted = row.spec["resources"]["workers"]
    if rank >= (workers := wanted if isinstance(wanted, int) else wanted["max"]):
        raise InvalidField("rank", f"this experiment has {workers} worker{'s' * (workers > 1)}, counted from 0")
    return rank


TheRank = Annotated[int, Depends(_rank_of)]


@router.get("/logs", response_class=PlainTextResponse, responses=documented(404, 422))
def read_logs(row: Existing, settings: TheSettings, rank: TheRank, offset: Offset = 0) -> PlainTextResponse:
    """Read a worker's log from a byte offset on; `X-Next-Offset` says where to go on."""
    chunk = logs.read(settings.storage_root, row.id, row.attempt, rank=rank, offset=offset)
    headers = {"X-Next-Offset": str(chunk.next_offset)}
    return PlainTextResponse(chunk.data, media_type="text/plain; charset=utf-8", headers=headers)


@router.get("/logs/stream", response_class=EventSourceResponse, responses=documented(404, 422))
async def stream_logs(
    row: Existing,
    store: TheStore,
    settings: TheSettings,
    closing: Closing,
    rank: TheRank,
    *,
    last_event_id: LastEventId = None,
) -> AsyncIterator[ServerSentEvent]:
    """Follow a worker's log; `id` is the byte offset behind the lines, `event: end` carries the final state."""
    offset = last_event_id or 0
    while not closing.is_set():
        row = await run_in_threadpool(store.get, row.id)
        ended = State(row.state) in TERMINAL
        while True:
            chunk = await run_in_threadpool(
                logs.read, settings.storage_root, row.id, row.attempt, rank=rank, offset=offset
            )
            chunk = chunk if ended else logs.whole_lines(chunk)
            if not chunk.data:
                break
            offset = chunk.next_offset
            yield ServerSentEvent(raw_data=chunk.text.removesuffix("\n"), id=str(offset))
        if ended:
            yield _end(row)
            return
        await asyncio.sleep(LOOK_SECONDS)


@router.get("/events/stream", response_class=EventSourceResponse, responses=documented(404, 422))
async def stream_events(
    row: Existing, store: TheStore, closing: Closing, last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Follow the changes of state; `id` is the event's `seq`, `event: end` carries the final state."""
    seen = last_event_id or 0
    while not closing.is_set():
        row, events = await run_in_threadpool(_news, store, row.id, seen)
        for event in events:
            seen = event.seq
            yield ServerSentEvent(data=event, event="move", id=str(seen))
        if State(row.state) in TERMINAL:
            yield _end(row)
            return
        await asyncio.sleep(LOOK_SECONDS)


def _news(store: Store, experiment_id: str, after_seq: int) -> tuple[Experiment, list[EventView]]:
    """The row is read first: what ended it is then among the events."""
    row = store.get(experiment_id)
    return row, [EventView.of(event) for event in store.events(experiment_id, after_seq=after_seq)]


def _end(row: Experiment) -> ServerSentEvent:
    return ServerSentEvent(data={"state": row.state, "reason": row.reason}, event="end")
