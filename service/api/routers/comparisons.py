"""Comparisons over HTTP: submit, look, change, judge. Routes translate; they decide nothing."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.bodies import BoundedRoute
from service.api.deps import GUARDED, CallerDep, Id, OperationsDep, ProfilerDep, SettingsDep, StoreDep
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
from service.api.study_views import comparison_view, mlflow_pages, trial_view
from service.comparisons import actions
from service.database.models.studies import Study
from service.domain.filters import PAGE_LIMIT
from service.domain.roles import require_change
from service.domain.studies import StudyKind
from service.preview import preview
from service.schemas.comparison_results import ResultView
from service.schemas.comparisons import ComparisonChanges, ComparisonQuery, ComparisonSpec, ReplicationRequest
from service.schemas.studies import (
    ComparisonPage,
    ComparisonPreview,
    ComparisonView,
    DecisionList,
    TrialList,
)
from service.studies.actions import act
from service.studies.store import StudyStore

router = APIRouter(
    prefix="/v1/comparisons",
    tags=["comparisons"],
    dependencies=GUARDED,
    route_class=BoundedRoute,
    responses=documented(401, 403),
)
FRAMES = "frame-ancestors 'none'"
TEXT = {"schema": {"type": "string"}}
REPORT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The report", "content": {"text/html": TEXT, "text/markdown": TEXT}}
}
FIGURE: dict[int | str, dict[str, Any]] = {200: {"description": "The figure", "content": {"image/svg+xml": TEXT}}}


def existing(study_id: Id, studies: StudiesDep) -> Study:
    """The comparison of the path, or a 404."""
    return studies.get(study_id, kind=StudyKind.COMPARISON)


ComparisonDep = Annotated[Study, Depends(existing)]


def changeable(row: ComparisonDep, caller: CallerDep) -> Study:
    """The comparison of the path, where the caller may change it; else a 403."""
    require_change(caller, row.owner)
    return row


EditableComparisonDep = Annotated[Study, Depends(changeable)]


class Shown:
    """Answers with one comparison as it is now, and its version as the ETag."""

    def __init__(self, studies: StudiesDep, settings: SettingsDep, response: Response) -> None:
        self.studies, self.settings, self.response = studies, settings, response

    def __call__(self, row: Study) -> ComparisonView:
        """The view of the row."""
        self.response.headers["ETag"] = f'"{row.version}"'
        counts, runs = self.studies.counts([row.id])[row.id], self.studies.mlflow_runs([row.id])
        return comparison_view(
            row, counts, mlflow=mlflow_pages(row.id, runs.get(row.id), self.settings.mlflow_public_url)
        )


ShownDep = Annotated[Shown, Depends()]


@router.post(
    "",
    status_code=201,
    responses=with_headers(201, TAG | {"Location": "the path of the comparison"})
    | documented(400, 409, 410, 413, 415, 422),
)
def submit(
    comparison: ComparisonSpec,
    response: Response,
    *,
    studies: StudiesDep,
    store: StoreDep,
    settings: SettingsDep,
    caller: CallerDep,
    shown: ShownDep,
    idempotency_key: Key = None,
) -> ComparisonView:
    """Accept a comparison: its experiments are queued in blocks of one seed, and it survives whatever fails."""
    row, _ = actions.submit(studies, store, settings, comparison, caller=caller, key=idempotency_key)
    response.headers["Location"] = f"/v1/comparisons/{row.id}"
    return shown(row)


@router.post("/preview", responses=documented(400, 413, 415, 422, 503))
async def show_preview(
    comparison: ComparisonSpec,
    studies: StudiesDep,
    settings: SettingsDep,
    *,
    network_profiler: ProfilerDep,
    caller: CallerDep,
    operations: OperationsDep,
) -> ComparisonPreview:
    """Say what would run, and what differences so many seeds can show. Nothing is stored."""
    specs = await run_in_threadpool(actions.checked, studies.database, settings, comparison)
    wants_gpus = any(spec.resources.gpus_per_worker for spec in specs.values())
    gpus = await run_in_threadpool(operations.gpus) if wants_gpus else None
    variants = {
        name: await preview.preview(network_profiler, spec, settings=settings, caller=caller.name, cluster_gpus=gpus)
        for name, spec in specs.items()
    }
    return await run_in_threadpool(actions.preview, comparison, specs, variants)


@router.get("", responses=documented(422))
def list_page(query: Annotated[ComparisonQuery, Query()], studies: StudiesDep, settings: SettingsDep) -> ComparisonPage:
    """List comparisons, the newest first, without their specs."""
    rows, cursor = study_page(studies, StudyKind.COMPARISON, query)
    ids, base = [row.id for row in rows], settings.mlflow_public_url
    counts, runs = studies.counts(ids), studies.mlflow_runs(ids)
    pages = {row.id: mlflow_pages(row.id, runs.get(row.id), base) for row in rows}
    items = [comparison_view(row, counts[row.id], mlflow=pages[row.id], with_spec=False) for row in rows]
    return ComparisonPage(items=items, next_cursor=cursor)


@router.get("/{study_id}", responses=with_headers(200, TAG) | documented(404, 422))
def show(row: ComparisonDep, shown: ShownDep) -> ComparisonView:
    """Show one comparison: where it is, and how far its experiments are."""
    return shown(row)


@router.patch("/{study_id}", responses=with_headers(200, TAG) | documented(400, 404, 409, 412, 413, 415, 422))
def change(
    row: EditableComparisonDep,
    changes: ComparisonChanges,
    *,
    studies: StudiesDep,
    caller: CallerDep,
    shown: ShownDep,
    if_match: IfMatch = None,
) -> ComparisonView:
    """Add seeds. One that has ended goes on."""
    version = version_of(if_match)
    return shown(actions.add_seeds(studies, row, changes.seeds, caller=caller, version=version))


@router.delete("/{study_id}", status_code=204, responses=documented(404, 409, 412, 422))
def delete(
    row: EditableComparisonDep,
    studies: StudiesDep,
    caller: CallerDep,
    *,
    experiments: Annotated[bool, Query(description="its experiments too, with their files")] = False,
    if_match: IfMatch = None,
) -> None:
    """Delete a comparison that has ended. Its experiments stay unless that is asked for."""
    studies.delete(row.id, by=caller.name, experiments=experiments, version=version_of(if_match))


@router.get("/{study_id}/trials", responses=documented(404, 422))
def trials(row: ComparisonDep, studies: StudiesDep, limit: Limit = PAGE_LIMIT, cursor: TrialCursor = 0) -> TrialList:
    """Show its runs, in the order in which they were queued."""
    found = studies.trial_list(row.id, first=cursor, limit=limit + 1)
    items = [trial_view(trial, row) for trial in found[:limit]]
    return TrialList(items=items, next_cursor=str(found[limit].number) if len(found) > limit else None)


@router.get("/{study_id}/decisions", responses=documented(404, 422))
def decisions(
    row: ComparisonDep, studies: StudiesDep, limit: Limit = PAGE_LIMIT, cursor: DecisionCursor = 0
) -> DecisionList:
    """Show what was decided of it, and asked for by users, oldest first."""
    return decision_list(studies, row, limit=limit, cursor=cursor)


@router.get("/{study_id}/result", responses=documented(404, 422))
def result(row: ComparisonDep, studies: StudiesDep) -> ResultView:
    """Judge it by what has ended: every number, the verdicts in words, and why it is not comparable where it is not."""
    return _judged(row, studies)


@router.get("/{study_id}/report", response_class=Response, responses=REPORT | documented(404, 422))
def report(
    row: ComparisonDep,
    studies: StudiesDep,
    settings: SettingsDep,
    *,
    format: Annotated[
        Literal["html", "markdown"], Query(description="html: one file that needs nothing else")
    ] = "html",
) -> Response:
    """Tell the result to people: verdicts, figure, table, what was held equal, how it was judged, every run."""
    from service.comparisons import report as reports
    from service.comparisons.figure import figure

    view, run = _judged(row, studies), studies.mlflow_runs([row.id]).get(row.id)
    mlflow = mlflow_pages(row.id, run, settings.mlflow_public_url).charts
    if format == "markdown":
        return Response(reports.markdown(view, mlflow=mlflow), media_type="text/markdown")
    page = reports.html(view, figure(view), mlflow=mlflow)
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": f"{reports.POLICY}; {FRAMES}"})


@router.get("/{study_id}/figure.svg", response_class=Response, responses=FIGURE | documented(404, 422))
def show_figure(row: ComparisonDep, studies: StudiesDep) -> Response:
    """Draw every difference: a dot for each seed, its intervals, the margin, the cost."""
    from service.comparisons.figure import figure

    policy = f"default-src 'none'; style-src 'unsafe-inline'; {FRAMES}"
    drawn = figure(_judged(row, studies))
    return Response(drawn, media_type="image/svg+xml", headers={"Content-Security-Policy": policy})


def _judged(row: Study, studies: StudyStore) -> ResultView:
    from service.comparisons.replications import with_replications  # loads SciPy, which the other calls do without

    return with_replications(studies, row)


@router.post(
    "/{study_id}/replicate",
    status_code=201,
    responses=with_headers(201, TAG | {"Location": "the path of the comparison"})
    | documented(400, 404, 409, 410, 413, 415, 422),
)
def replicate(
    row: ComparisonDep,
    request: Annotated[ReplicationRequest, Body(default_factory=ReplicationRequest)],
    response: Response,
    *,
    studies: StudiesDep,
    settings: SettingsDep,
    caller: CallerDep,
    shown: ShownDep,
    idempotency_key: Key = None,
) -> ComparisonView:
    """Ask the same again with fresh seeds: a comparison of its own, and the results of both tell of each other."""
    from service.comparisons import replications

    copy, _ = replications.replicate(studies, settings, row, request, caller=caller, key=idempotency_key)
    response.headers["Location"] = f"/v1/comparisons/{copy.id}"
    return shown(copy)


def _act(
    row: EditableComparisonDep, request: Request, studies: StudiesDep, caller: CallerDep, shown: ShownDep
) -> ComparisonView:
    action = request.url.path.rsplit("/", 1)[-1]
    return shown(act(studies, row.id, action, caller=caller))


MEANINGS: dict[Action, str] = {
    "cancel": "End all of its experiments, and itself.",
    "pause": "Have its experiments write a checkpoint and free what they hold; begin no others.",
    "resume": "Go on after a pause.",
    "retry": "Queue its experiments that failed or were cancelled once more. Those that diverged have a result.",
}
add_actions(router, _act, MEANINGS, kind="comparison", view=ComparisonView)
