"""What a call to prune takes and answers."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from service.domain.pruning import PruneScope
from service.schemas.base import View
from service.schemas.bulk import MOST_AT_ONCE, ExperimentIds
from service.schemas.problems import Problem
from service.schemas.queries import Narrowing


class PruneRequest(BaseModel):
    """Of which experiments files go: either their ids, or a filter, of which the longest ended come first."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"filter": {"project": "digits", "ended_before": "2026-10-01"}}]},
    )

    ids: ExperimentIds | None = None
    filter: Narrowing | None = Field(
        None,
        description="at least one condition; of your own, unless you are an admin; what has no such files is passed",
    )
    what: PruneScope = Field(
        PruneScope.CHECKPOINTS,
        description="`checkpoints`, or `all` files: logs, metrics, results and exported weights too",
    )
    dry_run: bool = Field(True, description="only say which, and how much would go; `false` removes them")
    limit: Annotated[int, Field(ge=1, le=MOST_AT_ONCE)] = Field(MOST_AT_ONCE, description="of those the filter finds")
    cursor: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        None, description="`next_cursor` of the answer before, with the same filter"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("say which experiments, either by `ids` or by `filter`")
        if self.cursor is not None and self.filter is None:
            raise ValueError("a `cursor` goes on with a `filter`")
        return self


class PruneResult(View):
    """What came of one experiment."""

    id: str
    ok: bool
    name: str | None = None
    owner: str | None = None
    ended_at: datetime | None = None
    bytes: int = Field(0, description="that go, or would, as they were last measured")
    problem: Problem | None = Field(None, description="what stood against it")


class PruneAnswer(View):
    """What came of each experiment."""

    dry_run: bool
    results: list[PruneResult]
    bytes: int = Field(description="of all of them together")
    next_cursor: str | None = Field(None, description="give it back as `cursor`; null where there are no more")
