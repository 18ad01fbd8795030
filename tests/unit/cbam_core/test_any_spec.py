"""Whatever stands in a field, a spec is taken and keeps its meaning, or is refused with the place of the field."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cbam_core.pointers import error_items
from cbam_core.spec import ExperimentSpec, spec_fields
from tests.support.specs import spec

FULL = spec().model_dump(mode="json")
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


def places(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every field of a document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key)
            yield from places(inner, (*path, key))


def part_at(path: tuple[str, ...]) -> Any:
    """What stands in that place."""
    part = FULL
    for key in path:
        part = part[key]
    return part


def with_value(path: tuple[str, ...], value: object) -> dict[str, Any]:
    """The full spec with this in that place."""
    document = deepcopy(FULL)
    part = document
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return document


PARTS = [path for path in [(), *sorted(places(FULL))] if isinstance(part_at(path), dict) and path != ("tags",)]


@settings(max_examples=400)
@given(st.sampled_from(sorted(places(FULL))), ANYTHING)
def test_any_value_in_any_field_is_taken_or_refused_by_its_place(path, value):
    document = with_value(path, value)
    try:
        taken = ExperimentSpec.model_validate(document)
    except ValidationError as error:
        found = error_items(error.errors(), document, fields=spec_fields())
        assert found
        assert all(pointer == "" or pointer.startswith("/") for pointer, _ in found)
        assert all(words for _, words in found)
    else:
        assert ExperimentSpec.model_validate(taken.model_dump(mode="json")) == taken


@settings(max_examples=100)
@given(st.sampled_from(PARTS), st.text(min_size=1, max_size=12))
def test_a_field_that_there_is_not_is_named(part, word):
    document = with_value((*part, f"{word}?"), 1)
    with pytest.raises(ValidationError) as refusal:
        ExperimentSpec.model_validate(document)
    (found,) = error_items(refusal.value.errors(), document, fields=spec_fields())
    escaped = f"{word}?".replace("~", "~0").replace("/", "~1")
    assert found[0] == "/" + "/".join((*part, escaped))
    assert found[1].startswith("there is no such field")
