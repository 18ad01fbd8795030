"""Comparisons and sweeps as files say them: YAML or JSON, and one message for all that is wrong."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from cbam_core.errors import SpecError
from cbam_core.pointers import error_items
from cbam_core.spec import read_fields
from cbam_core.suggestions import Path as FieldPath
from cbam_core.suggestions import fields_of
from service.schemas.comparisons import ComparisonSpec
from service.schemas.sweeps import SweepSpec

TAGS = {
    *("from_spec", "from_template"),
    *("fixed", "precision"),
    *("named", "list"),
    *("a_log_range", "a_range", "an_int_range", "choices"),
}
"""Names that pydantic gives to the kinds of a part; they stand in no file."""
SpecT = TypeVar("SpecT", ComparisonSpec, SweepSpec)


def read_comparison(path: str | Path) -> ComparisonSpec:
    """The comparison in a YAML or JSON file. Raises SpecError that says all that is wrong with it."""
    return make_study(ComparisonSpec, read_fields(path), source=str(path))


def read_sweep(path: str | Path) -> SweepSpec:
    """The sweep in a YAML or JSON file. Raises SpecError that says all that is wrong with it."""
    return make_study(SweepSpec, read_fields(path), source=str(path))


def make_study(model: type[SpecT], fields: Mapping[str, Any], *, source: str) -> SpecT:
    """The spec of these fields. Raises SpecError with a line for each that is wrong: source, pointer, words."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        errors = [{**one, "loc": _place(one["loc"])} for one in error.errors(include_url=False)]
        found = error_items(errors, fields, fields=_fields(model))
        raise SpecError("\n".join(f"{source}: {pointer or '/'}: {words}" for pointer, words in found)) from error


def _place(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return location[:1] + tuple(part for part in location[1:3] if part not in TAGS) + location[3:]


@cache
def _fields(model: type[ComparisonSpec] | type[SweepSpec]) -> tuple[FieldPath, ...]:
    return tuple(fields_of(model.model_json_schema()))
