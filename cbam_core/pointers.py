"""What is wrong with a spec, as JSON pointers (RFC 6901) into what the user wrote, and words."""

from collections.abc import Mapping, Sequence
from typing import Any


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
        parts.append(str(part).replace("~", "~0").replace("/", "~1"))
        value = value[part] if inside else None  # type: ignore[index]
    return "".join(f"/{part}" for part in parts)


def complaints(errors: Sequence[Mapping[str, Any]], body: object) -> list[tuple[str, str]]:
    """Pydantic's errors as pointers and words; without the input, which may be huge or secret."""
    return [
        (
            json_pointer(error["loc"], body, is_missing=error["type"] == "missing"),
            str(error["msg"]).removeprefix("Value error, "),
        )
        for error in errors
    ]
