"""Sweeps over HTTP: submit, look, extend, the best so far. Routes translate; they decide nothing."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.bodies import BoundedRoute
from service.api.deps import GUARDED, CallerDep, Id, OperationsDep, ProfilerDep, SettingsDep
from service.api.problems import documented, with_headers
from service.api.routers.experiments import IfMatch, Key, version_of
from service.api.study_pages import (
    TAG,
    Action,
    DecisionCursor,
    Limit,
    StudiesDep,
    TrialCursor,
    add_actions,
    decision_list,
    study_page,
)
from service.api.study_views import sweep_view
from service.database.models.studies import Study
from service.domain.filters import PAGE_LIMIT
from service.domain.roles import require_change
from service.domain.studies import StudyKind
from service.preview import preview
from service.schemas.studies import DecisionList
from service.schemas.sweep_views import SweepPage, SweepPreview, SweepResult, SweepTrialList, SweepView
from service.schemas.sweeps import SweepChanges, SweepQuery, SweepSpec
from service.studies.actions import act
from service.studies.store import StudyStore
from service.sweeps import actions
from service.sweeps.result import result_of, trial_views

router = APIRouter(
    prefix="/v1/sweeps",
    tags=["sweeps"],
    dependencies=GUARDED,
    route_class=BoundedRoute,
    responses=documented(401, 403),
)


def existing(study_id: Id, studies: StudiesDep) -> Study:
    """The sweep of the path, or a 404."""
    return studies.get(study_id, kind=StudyKind.SWEEP)


SweepDep = Annotated[Study, Depends(existing)]


def changeable(row: SweepDep, caller: CallerDep) -> Study:
    """The sweep of the path, where the caller may change it; else a 403."""
    require_change(caller, row.owner)
    return row


EditableSweepDep = Annotated[Study, Depends(changeable)]


def _shown(row: Study, studies: StudyStore, response: Response) -> SweepView:
    response.headers["ETag"] = f'"{row.version}"'
    return sweep_view(row, studies.counts([row.id])[row.id])


@router.post(
    "",
    status_code=201,
    responses=with_headers(201, TAG | {"Location": "the path of the sweep"}) | documented(400, 409, 410, 413, 415, 422),
)
def submit(
    sweep: SweepSpec,
    response: Response,
    *,
    studies: StudiesDep,
    settings: SettingsDep,
    caller: CallerDep,
    idempotency_key: Key = None,
) -> SweepView:
    """Accept a sweep: its trials are proposed and queued by and by, and it survives whatever fails."""
    row, _ = actions.submit(studies, settings, sweep, caller=caller, key=idempotency_key)
    response.headers["Location"] = f"/v1/sweeps/{row.id}"
    return _shown(row, studies, response)


@router.post("/preview", responses=documented(400, 413, 415, 422, 503))
async def show_preview(
    sweep: SweepSpec,
    settings: SettingsDep,
    network_profiler: ProfilerDep,
    caller: CallerDep,
    operations: OperationsDep,
) -> SweepPreview:
    """Say how many trials would run, with which values first, and what the first one costs. Nothing is stored."""
    await run_in_threadpool(actions.check, settings, sweep)
    spec, params = await run_in_threadpool(actions.first_trials, sweep)
    gpus = await run_in_threadpool(operations.gpus) if spec.resources.gpus_per_worker else None
    first = await preview.preview(network_profiler, spec, settings=settings, caller=caller.name, cluster_gpus=gpus)
    return actions.preview(sweep, params, first)


@router.get("", responses=documented(422))
def list_page(query: Annotated[SweepQuery, Query()], studies: StudiesDep) -> SweepPage:
    """List sweeps, the newest first, without their specs."""
    rows, cursor = study_page(studies, StudyKind.SWEEP, query)
    counts = studies.counts([row.id for row in rows])
    items = [sweep_view(row, counts[row.id], with_spec=False) for row in rows]
    return SweepPage(items=items, next_cursor=cursor)


@router.get("/{study_id}", responses=with_headers(200, TAG) | documented(404, 422))
def show(row: SweepDep, studies: StudiesDep, response: Response) -> SweepView:
    """Show one sweep: where it is, and how far its trials are."""
    return _shown(row, studies, response)


@router.patch("/{study_id}", responses=with_headers(200, TAG) | documented(400, 404, 409, 412, 413, 415, 422))
def change(
    row: EditableSweepDep,
    changes: SweepChanges,
    response: Response,
    *,
    studies: StudiesDep,
    caller: CallerDep,
    if_match: IfMatch = None,
) -> SweepView:
    """Change its limits. One that has ended goes on where more trials are asked for."""
    version = version_of(if_match)
    return _shown(actions.extend(studies, row, changes.limits, caller=caller, version=version), studies, response)


@router.delete("/{study_id}", status_code=204, responses=documented(404, 409, 412, 422))
def delete(
    row: EditableSweepDep,
    studies: StudiesDep,
    caller: CallerDep,
    *,
    experiments: Annotated[bool, Query(description="its experiments too, with their files")] = False,
    if_match: IfMatch = None,
) -> None:
    """Delete a sweep that has ended. Its experiments stay unless that is asked for."""
    studies.delete(row.id, by=caller.name, experiments=experiments, version=version_of(if_match))


@router.get("/{study_id}/trials", responses=documented(404, 422))
def trials(row: SweepDep, studies: StudiesDep, limit: Limit = PAGE_LIMIT, cursor: TrialCursor = 0) -> SweepTrialList:
    """Show its trials, in the order in which they were proposed."""
    found = trial_views(studies.database, row.id, first=cursor, limit=limit + 1)
    return SweepTrialList(items=found[:limit], next_cursor=str(found[limit].number) if len(found) > limit else None)


@router.get("/{study_id}/decisions", responses=documented(404, 422))
def decisions(
    row: SweepDep, studies: StudiesDep, limit: Limit = PAGE_LIMIT, cursor: DecisionCursor = 0
) -> DecisionList:
    """Show what was decided of it, and asked for by users, oldest first."""
    return decision_list(studies, row, limit=limit, cursor=cursor)


@router.get("/{study_id}/result", responses=documented(404, 422))
def result(row: SweepDep, studies: StudiesDep) -> SweepResult:
    """Show the best trial so far, and all of them by rank."""
    return result_of(studies.database, row)


def _act(
    row: EditableSweepDep, request: Request, response: Response, studies: StudiesDep, caller: CallerDep
) -> SweepView:
    action = request.url.path.rsplit("/", 1)[-1]
    return _shown(act(studies, row.id, action, caller=caller), studies, response)


MEANINGS: dict[Action, str] = {
    "cancel": "End all of its experiments, and itself.",
    "pause": "Have its experiments write a checkpoint and free what they hold; begin no others.",
    "resume": "Go on after a pause.",
    "retry": "Queue its experiments that failed or were cancelled once more, and new ones for those that were deleted.",
}
add_actions(router, _act, MEANINGS, kind="sweep", view=SweepView)
