"""What is wrong with a spec, as JSON pointers (RFC 6901) into what the user wrote, and words."""

from collections.abc import Mapping, Sequence
from typing import Any

from cbam_core.suggestions import Path, did_you_mean, meant_field

MOST_ERROR_ITEMS = 20  # that are told: a body may hold a hundred thousand fields that there are not
LONGEST_POINTER, LONGEST_WORDS = 256, 1024  # characters; the names of fields are the user's, of any length


def json_pointer(location: Sequence[str | int], body: object, *, is_missing: bool = False) -> str:
    """The pointer of pydantic's error location in `body`.

    Pydantic names the member of a union in the location ("attention", "cbam", "kernel_size"); such a part is not in the
    body, and is left out. With `is_missing` the last part is a field that should be in the body and is not.
    """
    parts: list[str] = []
    value = body
    for position, part in enumerate(location):
        inside = (isinstance(value, Mapping) and part in value) or (
            isinstance(part, int) and isinstance(value, list | tuple) and part < len(value)
        )
        if not inside and not (is_missing and position == len(location) - 1):
            continue
        parts.append(f"/{pointer_part(part)}")
        value = value[part] if inside else None  # type: ignore[index]
    return "".join(parts)


def pointer_part(name: object) -> str:
    """The name of a field as it stands in a pointer."""
    return str(name).replace("~", "~0").replace("/", "~1")


def error_items(
    errors: Sequence[Mapping[str, Any]], body: object, *, fields: Sequence[Path] = ()
) -> list[tuple[str, str]]:
    """Pydantic's errors as pointers and words; without the input, which may be huge or secret.

    Of many, the first are told, and then their number, at the pointer of the whole. Where the `fields` of the body are
    known, one that there is not is told with the one that may be meant.
    """
    told = [
        (
            cut(json_pointer(error["loc"], body, is_missing=error["type"] == "missing"), LONGEST_POINTER),
            cut(_words(error, fields), LONGEST_WORDS),
        )
        for error in errors[:MOST_ERROR_ITEMS]
    ]
    more = len(errors) - len(told)
    return [*told, ("", f"and {more} more")] if more else told


def cut(text: str, longest: int) -> str:
    """The text, no longer than that."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _words(error: Mapping[str, Any], fields: Sequence[Path]) -> str:
    if error["type"] == "extra_forbidden":
        return f"there is no such field{meant_field(error['loc'], fields)}"
    if error["type"] in ("model_type", "model_attributes_type"):
        return "a mapping of fields is wanted here"
    if error["type"] == "union_tag_not_found":
        return "its `type` is missing, which says what it is"
    words = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "union_tag_invalid":
        context = error["ctx"]
        return words + did_you_mean(
            str(context["tag"]), [tag.strip("'") for tag in context["expected_tags"].split(", ")]
        )
    return words
