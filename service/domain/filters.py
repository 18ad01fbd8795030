"""Which experiments a list shows, in which order, and where its next page starts.

Pages are cut by the values of the last row (keyset), never by a count: a page costs the same wherever it stands, and
nothing is shown twice or skipped while rows come and go. Every order ends with (created_at, id), so no two are alike.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

from service.domain.pruning import PruneScope
from service.domain.states import State
from service.domain.values import UNSTORABLE
from service.errors import InvalidField

PAGE_LIMIT = 200
FACETS = {
    "backbone": ("model", "backbone"),
    "attention": ("model", "attention", "type"),
    "dataset": ("data", "dataset"),
}
NOT_ALWAYS = ("started_at", "ended_at")  # what a row may lack
LARGEST_INTEGER = 2**31 - 1  # that PostgreSQL's INTEGER holds
_ID = re.compile("[0-9a-z]{1,32}")
FACET_MARK = ":"  # no tag can begin with it


class Sort(StrEnum):
    """The order of a list; a minus sign turns it round."""

    CREATED = "created_at"
    NEWEST = "-created_at"
    NAME = "name"
    NAME_DOWN = "-name"
    PRIORITY = "priority"
    PRIORITY_DOWN = "-priority"
    STARTED = "started_at"
    STARTED_DOWN = "-started_at"
    ENDED = "ended_at"
    ENDED_DOWN = "-ended_at"

    @property
    def column(self) -> str:
        """The column that comes first."""
        return self.removeprefix("-")

    @property
    def falls(self) -> bool:
        """Whether the largest comes first."""
        return self.startswith("-")


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Which experiments a list shows. A tag's value is None where any will do; `facets` are of the spec."""

    ids: Sequence[str] = ()
    states: Sequence[State] = ()
    project: str | None = None
    owner: str | None = None
    study: str | None = None  # the id of the one that asked for it
    name_contains: str | None = None
    tags: Sequence[tuple[str, str | None]] = ()
    facets: Mapping[str, str] = field(default_factory=dict)
    created_after: datetime | None = None
    created_before: datetime | None = None
    ended_before: datetime | None = None
    prunable: PruneScope | None = None  # has ended, and has files that would go

    @property
    def is_empty(self) -> bool:
        """Whether it shows everything."""
        return not any(vars(self).values())


@dataclass(frozen=True)
class Cursor:
    """A place in an ordered list: the values of the row that stands there."""

    sort: Sort
    value: str | int | datetime
    created_at: datetime
    id: str

    def to_cursor(self) -> str:
        """As an opaque text."""
        value = self.value.isoformat() if isinstance(self.value, datetime) else self.value
        text = json.dumps([self.sort, value, self.created_at.isoformat(), self.id])
        return base64.urlsafe_b64encode(text.encode()).decode()

    @classmethod
    def from_cursor(cls, cursor: str, sort: Sort) -> Self:
        """Back from `to_cursor`. Raises InvalidField where it is not one of ours, or of a list in another order."""
        try:
            order, value, created_at, row_id = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
            kind = {"name": str, "priority": int}.get(sort.column)
            right = _ID.fullmatch(row_id) and (kind is None or type(value) is kind)
            place = cls(sort, value if kind else _time(value), _time(created_at), row_id)
            if (
                not right
                or (kind is int and abs(value) > LARGEST_INTEGER)
                or (kind is str and UNSTORABLE.search(value))
            ):
                raise ValueError(cursor)
        except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error) as error:
            raise InvalidField("cursor", "not a cursor of this server") from error
        if order != sort:
            raise InvalidField("cursor", f"this cursor is of a list sorted by {str(order)[:32]}")
        return place


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(text)
    return time.astimezone(UTC)


def facets_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """The names in a spec that people look for, as far as they are there."""
    names = {facet: _at(spec, *path) for facet, path in FACETS.items()}
    return {facet: name for facet, name in names.items() if isinstance(name, str)}


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
