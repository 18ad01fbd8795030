"""A comparison as it goes on: its decisions and its counts as Server-Sent Events that resume where they were cut."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.api.deps import GUARDED, the_apps
from service.api.live.following import ANSWERS, NEEDS_ROOM, LastEventId, TheStay, next_change
from service.api.live.studies import StudyUpdates
from service.api.problems import documented
from service.api.routers.comparisons import ComparisonDep
from service.api.study_views import progress_view

router = APIRouter(
    prefix="/v1/comparisons/{study_id}", tags=["comparisons"], dependencies=GUARDED, responses=documented(401, 403)
)
StudyUpdatesDep = Annotated[StudyUpdates, the_apps("study_updates")]


@router.get("/events/stream", response_class=EventSourceResponse, dependencies=NEEDS_ROOM, responses=ANSWERS)
async def stream_comparison_events(
    row: ComparisonDep, updates: StudyUpdatesDep, stay: TheStay, last_event_id: LastEventId = None
) -> AsyncIterator[ServerSentEvent]:
    """Follow a comparison. `event: decision` tells what was decided of it, `id` is its `seq`; `event: progress` where
    it is, at once and whenever that changes: ask for `/result` again where `read` has grown. `event: end` carries the
    final state.
    """
    decided, snapshot, shown = last_event_id or 0, None, None
    async with updates.watching(row.id) as channel:
        while (snapshot := await next_change(channel, snapshot, stay)) is not None:
            while (found := await updates.decisions(channel, after_seq=decided)) and await stay.goes_on():
                for decision in found:
                    decided = decision.seq
                    yield ServerSentEvent(data=decision, event="decision", id=str(decided))
            if (progress := progress_view(snapshot, row.spec)) != shown:
                shown = progress
                yield ServerSentEvent(data=progress, event="progress")
            if snapshot.ended:
                yield ServerSentEvent(data={"state": snapshot.state, "reason": snapshot.reason}, event="end")
                return
