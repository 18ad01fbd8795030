"""What a call about many experiments answers."""

from typing import Annotated

from pydantic import Field, StringConstraints

from service.domain.states import State
from service.schemas.base import View
from service.schemas.problems import Problem

MOST_AT_ONCE = 200
ExperimentId = Annotated[str, StringConstraints(min_length=1, max_length=32, pattern=r"^[0-9a-z]+$")]
ExperimentIds = Annotated[list[ExperimentId], Field(min_length=1, max_length=MOST_AT_ONCE)]


class BulkResult(View):
    """What came of one experiment."""

    id: str
    ok: bool
    state: State | None = Field(None, description="where it is now; null once it is deleted, or where it was refused")
    problem: Problem | None = Field(None, description="what stood against it")


class BulkAnswer(View):
    """What came of each experiment."""

    results: list[BulkResult]
    more: bool = Field(description="whether the filter finds more than these: ask again")
