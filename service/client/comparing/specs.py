"""Comparisons as files say them: YAML or JSON, and one message for all that is wrong."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cbam_core.errors import SpecError
from cbam_core.pointers import error_items
from cbam_core.spec import read_fields
from cbam_core.suggestions import Path as FieldPath
from cbam_core.suggestions import fields_of
from service.schemas.comparisons import ComparisonSpec

TAGS = {"from_spec", "from_template", "fixed", "precision", "named", "list"}
"""Names that pydantic gives to the kinds of `base`, `seeds` and `from`; they stand in no file."""


def read_comparison(path: str | Path) -> ComparisonSpec:
    """The comparison in a YAML or JSON file. Raises SpecError that says all that is wrong with it."""
    return make_comparison(read_fields(path), source=str(path))


def make_comparison(fields: Mapping[str, Any], *, source: str) -> ComparisonSpec:
    """The comparison of these fields. Raises SpecError with a line for each that is wrong: source, pointer, words."""
    try:
        return ComparisonSpec.model_validate(fields)
    except ValidationError as error:
        errors = [{**one, "loc": _place(one["loc"])} for one in error.errors(include_url=False)]
        found = error_items(errors, fields, fields=_fields())
        raise SpecError("\n".join(f"{source}: {pointer or '/'}: {words}" for pointer, words in found)) from error


def _place(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return location[:1] + location[2:] if location[1:2] and location[1] in TAGS else location


@cache
def _fields() -> tuple[FieldPath, ...]:
    return tuple(fields_of(ComparisonSpec.model_json_schema()))
