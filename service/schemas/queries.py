"""How a list is narrowed, as users write it: the same words in a query and in the body of a bulk call."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from service.domain.filters import FACETS, PAGE_LIMIT, Filter, Sort
from service.domain.states import State
from service.schemas.bulk import ExperimentId

_TAG = r"^[A-Za-z0-9._/-]{1,64}([:=][^\x00]{0,512})?$"


def _utc(value: object) -> object:
    """A time as ISO 8601 has it; without a zone it is UTC. In a URL a plus sign arrives as a space."""
    if not isinstance(value, str):
        return value
    try:
        time = datetime.fromisoformat(value.strip().replace(" ", "+") if "T" in value else value)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time outside the years 1 to 9999") from error


Time = Annotated[datetime, BeforeValidator(_utc)]
Word = Annotated[str, StringConstraints(max_length=128)]
Tag = Annotated[str, StringConstraints(pattern=_TAG)]


class Narrowing(BaseModel):
    """Which experiments; all that is given must hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: list[State] = Field([], max_length=len(State), description="any of these; in a query repeat it for several")
    project: Word | None = None
    owner: Word | None = None
    study: Annotated[str, StringConstraints(max_length=32, pattern=r"^[0-9a-z]+$")] | None = Field(
        None, description="the id of the comparison or sweep that they are of"
    )
    tag: list[Tag] = Field(
        [],
        max_length=8,
        description="`key`, `key:value` or `key=value`; several must all be there",
        examples=[["paper:cbam"]],
    )
    q: Word | None = Field(None, description="part of the name, in whatever case")
    backbone: Word | None = Field(None, examples=["resnet18"])
    attention: Word | None = Field(None, description="the type: cbam, se, none, …")
    dataset: Word | None = None
    created_after: Time | None = Field(None, description="ISO 8601, this moment included; UTC where no zone is given")
    created_before: Time | None = Field(None, description="ISO 8601, this moment not included")

    ended_before: Time | None = Field(None, description="ISO 8601, this moment not included; only what has ended")

    def to_filter(self) -> Filter:
        """As the store takes it."""
        return Filter(
            states=self.state,
            project=self.project,
            owner=self.owner,
            study=self.study,
            name_contains=self.q,
            tags=[_parts(tag) for tag in self.tag],
            facets={name: value for name in FACETS if (value := getattr(self, name)) is not None},
            created_after=self.created_after,
            created_before=self.created_before,
            ended_before=self.ended_before,
        )


class ListQuery(Narrowing):
    """A narrowing, an order and a page."""

    id: list[ExperimentId] = Field(
        [], max_length=PAGE_LIMIT, description="these, as far as they are there; repeat it for several"
    )
    sort: Sort = Field(Sort.NEWEST, description="a minus sign turns the order round")
    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT)] = 50
    cursor: Annotated[str, StringConstraints(max_length=1024)] | None = Field(
        None, description="`next_cursor` of the page before, with the same sort"
    )
    spec: bool = Field(True, description="false leaves the specs out: `spec` is empty, and the list is much smaller")

    def to_filter(self) -> Filter:
        """As the store takes it."""
        return replace(super().to_filter(), ids=self.id)


def _parts(tag: str) -> tuple[str, str | None]:
    at = min((place for place in (tag.find(":"), tag.find("=")) if place >= 0), default=-1)
    return (tag, None) if at < 0 else (tag[:at], tag[at + 1 :])
