"""What the user may have meant: the field of a spec that is closest to one that there is not."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

CLOSE = 0.6
MOST_KINDS = 4
LONGEST = 64  # of what is compared: the word may come from anybody
Path = tuple[str, ...]
_TAG = "="  # marks a part of a location that stands in no spec


def did_you_mean(word: str, known: Iterable[str], *, most: int = 3, prefix: str = "") -> str:
    """` (did you mean …?)`, each with the prefix, or nothing where no known word is close."""
    close = [prefix + found for found in difflib.get_close_matches(word[:LONGEST], [*known], n=most, cutoff=CLOSE)]
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def meant_field(location: Sequence[str | int], fields: Sequence[Path]) -> str:
    """What may have been meant by a field that there is not: one of its neighbours, or its namesake elsewhere.

    `location` is pydantic's: it also holds the tags of unions.
    """
    parts = [str(part) for part in location]
    neighbours = {path[-1] for path in fields if [part.removeprefix(_TAG) for part in path[:-1]] == parts[:-1]}
    if close := did_you_mean(parts[-1], sorted(neighbours), most=1):
        return close
    kinds = [path[-2].removeprefix(_TAG) for path in fields if path[-1] == parts[-1] and _is_beside(path, parts)]
    if kinds:
        return f" of {parts[-2]}, only of type {', '.join(kinds[:MOST_KINDS])}{', …' * (len(kinds) > MOST_KINDS)}"
    namesakes = {
        ".".join(part for part in path if not part.startswith(_TAG)) for path in fields if path[-1] == parts[-1]
    }
    return f" (did you mean {min(namesakes, key=len)}?)" if namesakes else ""


def _is_beside(path: Path, parts: Sequence[str]) -> bool:
    """Whether a field stands in the same place, in a part of another type."""
    return path[-2:-1] != () and path[-2].startswith(_TAG) and list(path[:-2]) == parts[:-2]


def fields_of(schema: Mapping[str, Any]) -> list[Path]:
    """Every field that a JSON schema of pydantic's knows, with the tags of unions on the way."""
    return list(_below(schema, schema, ()))


def _below(node: Mapping[str, Any], schema: Mapping[str, Any], at: Path) -> Iterator[Path]:
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    for name, inner in node.get("properties", {}).items():
        yield (*at, name)
        yield from _below(inner, schema, (*at, name))
    tags: dict[str, list[str]] = {}
    for tag, ref in node.get("discriminator", {}).get("mapping", {}).items():
        tags.setdefault(ref, []).append(tag)
    for inner in (*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())):
        for place in [(*at, _TAG + tag) for tag in tags.get(inner.get("$ref", ""), ())] or [at]:
            yield from _below(inner, schema, place)
