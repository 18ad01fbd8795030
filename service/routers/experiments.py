"""Experiments over HTTP: submit, look, list, ask for a change. Routes translate; they decide nothing."""

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response

from cbam_core.spec import ExperimentSpec
from service import experiments, preview
from service.deps import GUARDED, Existing, ExperimentId, TheCaller, TheSettings, TheStore
from service.errors import InvalidField
from service.http_errors import documented
from service.schemas import AttemptList, AttemptView, EventList, EventView, ExperimentPage, ExperimentView, PreviewView
from service.states import State
from service.store import PAGE_LIMIT, Filter

router = APIRouter(prefix="/v1/experiments", tags=["experiments"], dependencies=GUARDED, responses=documented(401, 403))
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]


@router.post("", status_code=201, responses=documented(400, 413, 415, 422))
def submit(
    spec: ExperimentSpec,
    response: Response,
    *,
    store: TheStore,
    settings: TheSettings,
    caller: TheCaller,
    idempotency_key: Key = None,
) -> ExperimentView:
    """Accept an experiment: it is stored, will run as soon as it fits, and survives whatever fails."""
    row, _ = experiments.submit(store, settings, spec, caller=caller, key=idempotency_key)
    response.headers["Location"] = f"/v1/experiments/{row.id}"
    return ExperimentView.of(row, settings)


@router.post("/preview", responses=documented(400, 413, 415, 422))
def show_preview(spec: ExperimentSpec, settings: TheSettings) -> PreviewView:
    """Say what would run: parameters, MACs, attention sites, steps. Nothing is stored."""
    experiments.check_data_root(settings, spec)
    return preview.preview(spec)


@router.get("", responses=documented(422))
def list_page(
    store: TheStore,
    settings: TheSettings,
    *,
    state: Annotated[list[State] | None, Query(description="repeat it for several states")] = None,
    project: Annotated[str | None, Query(max_length=128)] = None,
    q: Annotated[str | None, Query(max_length=128, description="part of the name")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_LIMIT)] = 50,
    cursor: Annotated[str | None, Query(max_length=256, description="`next_cursor` of the page before")] = None,
) -> ExperimentPage:
    """List experiments, the newest first."""
    where = Filter(states=state or (), project=project, name_contains=q)
    rows, after = store.page(where, limit=limit, after=_place(cursor))
    return ExperimentPage(items=[ExperimentView.of(row, settings) for row in rows], next_cursor=_cursor(after))


@router.get("/{experiment_id}", responses=documented(404, 422))
def show(row: Existing, settings: TheSettings) -> ExperimentView:
    """Show one experiment: state, progress, last metrics, links."""
    return ExperimentView.of(row, settings)


@router.get("/{experiment_id}/events", responses=documented(404, 422))
def events(experiment_id: ExperimentId, store: TheStore) -> EventList:
    """Show every change of state, oldest first."""
    return EventList(items=[EventView.of(row) for row in store.events(experiment_id)])


@router.get("/{experiment_id}/attempts", responses=documented(404, 422))
def attempts(experiment_id: ExperimentId, store: TheStore) -> AttemptList:
    """Show every attempt, oldest first."""
    return AttemptList(items=[AttemptView.of(row) for row in store.attempts(experiment_id)])


def _act(
    request: Request, experiment_id: ExperimentId, store: TheStore, settings: TheSettings, caller: TheCaller
) -> ExperimentView:
    action = request.url.path.rsplit("/", 1)[-1]
    return ExperimentView.of(experiments.act(store, experiment_id, action, caller=caller), settings)


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
        responses=documented(404, 409, 422),
        name=action,
        summary=action.capitalize(),
        description=meaning,
    )


def _cursor(place: tuple[datetime, str] | None) -> str | None:
    if place is None:
        return None
    return base64.urlsafe_b64encode(json.dumps([place[0].isoformat(), place[1]]).encode()).decode()


def _place(cursor: str | None) -> tuple[datetime, str] | None:
    if cursor is None:
        return None
    try:
        at, experiment_id = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        place = datetime.fromisoformat(at), str(experiment_id)
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidField("cursor", "not a cursor of this server") from error
    if place[0].tzinfo is None:
        raise InvalidField("cursor", "not a cursor of this server")
    return place
