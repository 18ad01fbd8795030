"""Experiments over HTTP: submit, look, list, change, copy, delete. Routes translate; they decide nothing."""

from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import State

from cbam_core.errors import SpecError
from cbam_core.spec import ExperimentSpec, make_spec
from service.api.bodies import BoundedRoute
from service.api.deps import (
    GUARDED,
    CallerDep,
    EditableExperimentDep,
    ExperimentDep,
    OperationsDep,
    ProfilerDep,
    SettingsDep,
    StoreDep,
)
from service.api.problems import documented, with_headers
from service.api.views import experiment_view
from service.database.models.experiments import Experiment
from service.database.operations import Operations
from service.domain.filters import Cursor
from service.experiments import actions
from service.experiments.initial_weights import with_digest
from service.experiments.store import Changes
from service.experiments.submission import spec_of
from service.preview import preview
from service.schemas.experiments import ExperimentPage, ExperimentView
from service.schemas.previews import AdviceView, PreviewView
from service.schemas.queries import ListQuery
from service.schemas.submissions import ExperimentChanges, Overrides, Submission

router = APIRouter(
    prefix="/v1/experiments",
    tags=["experiments"],
    dependencies=GUARDED,
    route_class=BoundedRoute,
    responses=documented(401, 403),
)
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="a name of your choice: sent again within 24 hours, it gives the same experiment, "
        "or 410 where that has been deleted",
    ),
]
IfMatch = Annotated[
    str | None,
    Header(alias="If-Match", max_length=64, description="the ETag that was read: 412 where it has changed since"),
]
TAG = {"ETag": "its version, for If-Match"}
TAG_AND_PLACE = TAG | {"Location": "the path of the experiment"}


def _shown(row: Experiment, response: Response, request: Request, *, is_new: bool = False) -> ExperimentView:
    response.headers["ETag"] = f'"{row.version}"'
    view = experiment_view(row, request.app.state.settings)
    if not is_new:
        return view
    response.headers["Location"] = f"/v1/experiments/{row.id}"
    return view.model_copy(update={"warnings": _warnings(request.app.state, row)})


def _warnings(state: State, row: Experiment) -> list[AdviceView]:
    try:
        spec = make_spec(row.spec, source="its stored spec")
    except SpecError:  # a repeated submission of what an older version took
        return []
    gpus = _gpus(state.operations, spec)
    return preview.warnings_of(state.network_profiler, spec, settings=state.settings, cluster_gpus=gpus)


def _gpus(operations: Operations, spec: ExperimentSpec) -> float | None:
    """Of the cluster, where the spec wants some: who wants none need not wait for the question."""
    return operations.gpus() if spec.resources.gpus_per_worker else None


@router.post("", status_code=201, responses=with_headers(201, TAG_AND_PLACE) | documented(400, 410, 413, 415, 422))
def submit(
    submission: Submission,
    request: Request,
    response: Response,
    *,
    store: StoreDep,
    settings: SettingsDep,
    caller: CallerDep,
    idempotency_key: Key = None,
) -> ExperimentView:
    """Accept an experiment: it is stored, will run as soon as it fits, and survives whatever fails."""
    row, _ = actions.submit(store, settings, spec_of(submission), caller=caller, key=idempotency_key)
    return _shown(row, response, request, is_new=True)


@router.post("/preview", responses=documented(400, 413, 415, 422, 503))
async def show_preview(
    submission: Submission,
    store: StoreDep,
    settings: SettingsDep,
    *,
    network_profiler: ProfilerDep,
    caller: CallerDep,
    operations: OperationsDep,
) -> PreviewView:
    """Say what would run: parameters, MACs, attention sites, steps, memory, and what looks odd. Nothing is stored."""

    def checked() -> tuple[ExperimentSpec, float | None]:
        spec = spec_of(submission)
        actions.check(settings, spec)
        return with_digest(store.database, settings, spec), _gpus(operations, spec)

    spec, gpus = await run_in_threadpool(checked)
    return await preview.preview(network_profiler, spec, settings=settings, caller=caller.name, cluster_gpus=gpus)


@router.get("", responses=documented(422))
def list_page(query: Annotated[ListQuery, Query()], store: StoreDep, settings: SettingsDep) -> ExperimentPage:
    """List experiments, the newest first. What lacks the value that the list is sorted by is left out."""
    after = Cursor.from_cursor(query.cursor, query.sort) if query.cursor is not None else None
    narrowed = query.to_filter()
    rows, place = store.page(narrowed, sort=query.sort, limit=query.limit, after=after, specs=query.spec)
    cursor = None if place is None else place.to_cursor()
    items = [experiment_view(row, settings, with_spec=query.spec) for row in rows]
    return ExperimentPage(items=items, next_cursor=cursor)


@router.get("/{experiment_id}", responses=with_headers(200, TAG) | documented(404, 422))
def show(row: ExperimentDep, request: Request, response: Response) -> ExperimentView:
    """Show one experiment: state, progress, last metrics, links."""
    return _shown(row, response, request)


@router.patch("/{experiment_id}", responses=with_headers(200, TAG) | documented(400, 404, 412, 413, 415, 422))
def change(
    row: EditableExperimentDep,
    changes: ExperimentChanges,
    request: Request,
    response: Response,
    *,
    store: StoreDep,
    if_match: IfMatch = None,
) -> ExperimentView:
    """Change priority, tags or description; what is left out stays. The next attempt, and its MLflow run, go by it."""
    wanted = Changes(**changes.model_dump(exclude_none=True))
    return _shown(actions.change(store, row, wanted, version=version_of(if_match)), response, request)


@router.delete("/{experiment_id}", status_code=204, responses=documented(404, 409, 412, 422))
def delete(row: EditableExperimentDep, store: StoreDep, caller: CallerDep, if_match: IfMatch = None) -> None:
    """Delete an experiment that has ended, with its attempts, events, logs and checkpoints. Its MLflow run stays."""
    store.delete(row.id, by=caller.name, version=version_of(if_match))


@router.post(
    "/{experiment_id}/clone",
    status_code=201,
    responses=with_headers(201, TAG_AND_PLACE) | documented(400, 404, 410, 413, 415, 422),
)
def clone(
    row: ExperimentDep,
    request: Request,
    response: Response,
    overrides: Annotated[Overrides, Body(default_factory=dict)],
    *,
    store: StoreDep,
    settings: SettingsDep,
    caller: CallerDep,
    idempotency_key: Key = None,
) -> ExperimentView:
    """Submit the same experiment once more, with changes. The copy is the caller's, whoever's the original is."""
    copy, _ = actions.clone(store, settings, row, overrides, caller=caller, key=idempotency_key)
    view = _shown(copy, response, request, is_new=True)
    if (detail := actions.not_comparable(row)) is None:
        return view
    warnings = [AdviceView(pointer="", code="not_comparable", detail=detail), *view.warnings]
    return view.model_copy(update={"warnings": warnings})


def _act(row: EditableExperimentDep, request: Request, response: Response, store: StoreDep) -> ExperimentView:
    action = request.url.path.rsplit("/", 1)[-1]
    caller = request.state.caller
    return _shown(actions.act(store, row.id, action, caller=caller), response, request)


for action, meaning in {
    "cancel": "End it and free what it holds; the last checkpoint stays.",
    "pause": "Write a checkpoint at the next step, free what it holds, wait.",
    "resume": "Queue a paused experiment; it goes on from its checkpoint.",
    "retry": "Queue a failed or cancelled experiment once more; it goes on from its last checkpoint.",
}.items():
    router.add_api_route(
        f"/{{experiment_id}}/{action}",
        _act,
        methods=["POST"],
        status_code=202,
        response_model=ExperimentView,
        responses=with_headers(202, TAG) | documented(404, 409, 422),
        name=action,
        summary=action.capitalize(),
        description=meaning,
    )


def version_of(if_match: str | None) -> int | None:
    """The version that an If-Match header names; -1, which none has, where it is no ETag of ours."""
    if if_match is None or if_match.strip() == "*":
        return None
    digits = if_match.strip().removeprefix('"').removesuffix('"')
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else -1
