"""Prune: remove checkpoints, or all files, of ended experiments. First as a dry run, which is the default."""

from fastapi import APIRouter

from service.api.bodies import BoundedRoute
from service.api.deps import GUARDED, CallerDep, StoreDep
from service.api.problems import documented, problem_of
from service.domain.filters import Cursor, Sort
from service.experiments import pruning
from service.experiments.pruning import Pruned
from service.schemas.pruning import PruneAnswer, PruneRequest, PruneResult

router = APIRouter(
    prefix="/v1/bulk",
    tags=["experiments"],
    dependencies=GUARDED,
    route_class=BoundedRoute,
    responses=documented(400, 401, 403, 413, 415, 422),
)


@router.post("/prune")
def prune(request: PruneRequest, store: StoreDep, caller: CallerDep) -> PruneAnswer:
    """Remove checkpoints, or all files, of experiments that have ended; or, unless `dry_run` is false, say what would
    go. The rows stay, and so do the MLflow runs. Answers 200 whatever came of each: look at `ok`.
    """
    ids, place = list(request.ids or ()), None
    if request.filter is not None:
        ids, place = pruning.chosen(
            store,
            request.filter.to_filter(),
            request.what,
            caller=caller,
            limit=request.limit,
            after=None if request.cursor is None else Cursor.from_cursor(request.cursor, Sort.ENDED),
        )
    found = pruning.apply(store, request.what, ids, caller=caller, dry_run=request.dry_run)
    return PruneAnswer(
        dry_run=request.dry_run,
        results=[_shown(one) for one in found],
        bytes=sum(one.bytes for one in found),
        next_cursor=None if place is None else place.to_cursor(),
    )


def _shown(one: Pruned) -> PruneResult:
    problem = None if one.error is None else problem_of(one.error, instance=f"/v1/experiments/{one.id}")
    row = {} if one.row is None else {name: getattr(one.row, name) for name in ("name", "owner", "ended_at")}
    return PruneResult(id=one.id, ok=problem is None, bytes=one.bytes, problem=problem, **row)
