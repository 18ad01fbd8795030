"""Many experiments at once: cancel or delete those of a list, or those that a filter finds."""

from typing import Annotated, Self

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, model_validator

from service.api.bodies import BoundedRoute
from service.api.deps import GUARDED, CallerDep, StoreDep
from service.api.problems import documented, problem_of
from service.domain.roles import Caller
from service.domain.states import State
from service.experiments import bulk
from service.experiments.bulk import Action, Result
from service.experiments.store import ExperimentStore
from service.schemas.bulk import MOST_AT_ONCE, BulkAnswer, BulkResult, ExperimentIds
from service.schemas.queries import Narrowing

router = APIRouter(
    prefix="/v1/bulk",
    tags=["experiments"],
    dependencies=GUARDED,
    route_class=BoundedRoute,
    responses=documented(400, 401, 403, 413, 415, 422),
)


class BulkRequest(BaseModel):
    """Which experiments: either their ids, or a filter, of which the newest `limit` are taken."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"filter": {"project": "digits", "state": ["QUEUED"]}, "dry_run": True}]},
    )

    ids: ExperimentIds | None = None
    filter: Narrowing | None = Field(None, description="at least one condition; of your own, unless you are an admin")
    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] = Field(MOST_AT_ONCE, description="of those the filter finds")
    dry_run: bool = Field(False, description="only say which")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("say which experiments, either by `ids` or by `filter`")
        return self


@router.post("/cancel")
def cancel(request: BulkRequest, store: StoreDep, caller: CallerDep) -> BulkAnswer:
    """Cancel many experiments. Answers 200 whatever came of each: look at `ok`."""
    return _apply("cancel", request, store, caller)


@router.post("/delete")
def delete(request: BulkRequest, store: StoreDep, caller: CallerDep) -> BulkAnswer:
    """Delete many experiments that have ended, with their files. Answers 200 whatever came of each: look at `ok`."""
    return _apply("delete", request, store, caller)


def _apply(action: Action, request: BulkRequest, store: ExperimentStore, caller: Caller) -> BulkAnswer:
    ids, more = list(request.ids or ()), False
    if request.filter is not None:
        ids, more = bulk.chosen(store, request.filter.to_filter(), caller=caller, limit=request.limit)
    if request.dry_run:
        return BulkAnswer(results=[BulkResult(id=one, ok=True) for one in ids], more=more)
    return BulkAnswer(results=[_shown(result) for result in bulk.apply(store, action, ids, caller=caller)], more=more)


def _shown(result: Result) -> BulkResult:
    path = f"/v1/experiments/{result.id}"
    problem = None if result.error is None else problem_of(result.error, instance=path)
    state = None if result.row is None else State(result.row.state)
    return BulkResult(id=result.id, ok=problem is None, state=state, problem=problem)
