"""What the routes of comparisons and sweeps share: parameters, pages of studies and of decisions."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from service.api.deps import the_apps
from service.api.problems import documented, with_headers
from service.database.models.studies import Study
from service.domain.filters import LARGEST_INTEGER, PAGE_LIMIT, Cursor, Sort
from service.domain.studies import StudyKind
from service.schemas.base import View
from service.schemas.comparisons import ComparisonQuery
from service.schemas.studies import DecisionList, DecisionView
from service.schemas.sweeps import SweepQuery
from service.studies.store import StudyStore

StudiesDep = Annotated[StudyStore, the_apps("studies")]
Limit = Annotated[int, Query(ge=1, le=PAGE_LIMIT)]
OF_PAGE = "`next_cursor` of the page before"
TrialCursor = Annotated[int, Query(ge=0, le=LARGEST_INTEGER, description=OF_PAGE)]
DecisionCursor = Annotated[int, Query(ge=0, lt=2**63, description=OF_PAGE)]
TAG = {"ETag": "its version, for If-Match"}
Action = Literal["cancel", "pause", "resume", "retry"]


def add_actions(
    router: APIRouter, act: Callable[..., View], meanings: Mapping[Action, str], *, kind: str, view: type[View]
) -> None:
    """Add a route for each action on a study of the path; `act` goes by the last part of it."""
    for action, meaning in meanings.items():
        router.add_api_route(
            f"/{{study_id}}/{action}",
            act,
            methods=["POST"],
            status_code=202,
            response_model=view,
            responses=with_headers(202, TAG) | documented(404, 409, 422),
            name=f"{action}_{kind}",
            summary=f"{action.capitalize()} a {kind}",
            description=meaning,
        )


def study_page(
    studies: StudyStore, kind: StudyKind, query: ComparisonQuery | SweepQuery
) -> tuple[list[Study], str | None]:
    """One page of studies, the newest first, and the cursor of the next one."""
    after = None if query.cursor is None else Cursor.from_cursor(query.cursor, Sort.NEWEST)
    rows, place = studies.page(
        kind,
        owner=query.owner,
        states=query.state,
        limit=query.limit,
        after=None if after is None else (after.created_at, after.id),
    )
    return rows, None if place is None else Cursor(Sort.NEWEST, place[0], *place).to_cursor()


def decision_list(studies: StudyStore, row: Study, *, limit: int, cursor: int) -> DecisionList:
    """What was decided of a study behind a place, oldest first."""
    found = studies.decisions(row.id, after_seq=cursor, limit=limit + 1)
    items = [DecisionView.model_validate(one) for one in found[:limit]]
    return DecisionList(items=items, next_cursor=str(items[-1].seq) if len(found) > limit else None)
