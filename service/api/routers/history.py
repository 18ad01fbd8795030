"""What happened to an experiment: its changes of state, its attempts, its metrics."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.deps import GUARDED, ExperimentFilesDep, ExperimentId, SettingsDep, StoreDep
from service.api.problems import documented
from service.domain.filters import LARGEST_INTEGER, PAGE_LIMIT
from service.experiments.metric_history import read_curves
from service.schemas.history import AttemptList, AttemptView, CurveList, CurveView, EventList, EventView

router = APIRouter(
    prefix="/v1/experiments/{experiment_id}",
    tags=["history"],
    dependencies=GUARDED,
    responses=documented(401, 403, 404, 422),
)
MOST_POINTS = 10_000
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT)]
OF_PAGE = "`next_cursor` of the page before"
Cursor = Annotated[int, Query(ge=0, lt=2**63, description=OF_PAGE)]
AttemptCursor = Annotated[int, Query(ge=0, le=LARGEST_INTEGER, description=OF_PAGE)]


@router.get("/events")
def events(experiment_id: ExperimentId, store: StoreDep, limit: Limit = PAGE_LIMIT, cursor: Cursor = 0) -> EventList:
    """Show every change of state, oldest first."""
    rows = store.events(experiment_id, after_seq=cursor, limit=limit + 1)
    more = len(rows) > limit
    items = [EventView.model_validate(row) for row in rows[:limit]]
    return EventList(items=items, next_cursor=str(items[-1].seq) if more else None)


@router.get("/attempts")
def attempts(
    experiment_id: ExperimentId, store: StoreDep, limit: Limit = PAGE_LIMIT, cursor: AttemptCursor = 0
) -> AttemptList:
    """Show every attempt, oldest first."""
    rows = store.attempts(experiment_id, after=cursor, limit=limit + 1)
    more = len(rows) > limit
    items = [AttemptView.model_validate(row) for row in rows[:limit]]
    return AttemptList(items=items, next_cursor=str(items[-1].number) if more else None)


@router.get("/metrics", responses=documented(410))
def metrics(
    row: ExperimentFilesDep,
    settings: SettingsDep,
    *,
    name: Annotated[
        list[Annotated[str, Query(max_length=256)]] | None,
        Query(max_length=64, description="repeat it for several; all where left out"),
    ] = None,
    after_step: Annotated[int, Query(ge=-1, lt=2**63, description="only later steps: to follow a training")] = -1,
    max_points: Annotated[
        int, Query(ge=1, le=MOST_POINTS, description="of each metric; evenly chosen where there are more")
    ] = 1000,
) -> CurveList:
    """Show the history of the metrics. It comes from shared storage, so that MLflow may be away."""
    curves = read_curves(
        settings.storage_root, row.id, names=frozenset(name or ()), after_step=after_step, most_points=max_points
    )
    return CurveList(items=[CurveView.model_validate(curve) for curve in curves])
