"""Changes to a spec: a JSON merge patch (RFC 7396) whose top keys may be dotted paths, as in `{"train.epochs": 3}`."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel

from cbam_core.pointers import pointer_part
from cbam_core.spec import ModelSpec, TrainSpec
from service.errors import InvalidField

TAGS = "tags"  # the names of tags have dots of their own
NAMED_BY_TYPE = ("attention", "optimizer", "schedule")  # `cbam` is short for `{type: cbam}`
DEEPEST = 16  # a spec has five levels


def apply_patch(fields: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with the overrides put in; null takes a field away, so that its default stands again.

    What names its kind by `type` (attention, optimizer, schedule) is replaced as a whole where the kind changes: the
    options of one kind are not those of another. Where there is none, the kind that a spec has by default stands: a
    rate alone is that of its optimizer. Raises InvalidField where a dotted path leads through a value, or
    deeper than any spec is.
    """
    result = dict(fields)
    for key, value in overrides.items():
        head, dot, rest = key.partition(".")
        path = [key] if not dot else [head, rest] if head == TAGS else key.split(".")
        if len(path) + _depth(value) > DEEPEST:
            raise InvalidField(_pointer(key), "deeper than any field of a spec")
        patch = value
        for name in reversed(path[1:]):
            patch = {name: patch}
        _check_path(result, path, key)
        result = _merged(result, {path[0]: patch})
    return result


def kinds_first(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides, by dotted paths, in an order in which none takes away what another has set.

    What names a kind goes first, as that takes the fields of the other kind away.
    """

    def names_kind(name: str) -> bool:
        *_, parent, last = ["", *name.split(".")]
        return last in NAMED_BY_TYPE or (last == "type" and parent in NAMED_BY_TYPE)

    return {name: overrides[name] for name in sorted(overrides, key=lambda name: (not names_kind(name), name))}


def _check_path(fields: Mapping[str, Any], path: list[str], key: str) -> None:
    """A plain patch may put fields where a value was; a path that was misspelt should not."""
    inner: Any = fields
    for name in path[:-1]:
        inner = inner.get(name)
        if inner is None or (name in NAMED_BY_TYPE and isinstance(inner, str)):
            return
        if not isinstance(inner, Mapping):
            raise InvalidField(_pointer(key), f"{name} holds a value, not fields")


def _pointer(key: str) -> str:
    return f"/{pointer_part(key)}"


def _depth(value: Any) -> int:
    """How many mappings lie in each other; no further than what is too deep."""
    depth, level = 0, [value]
    while depth <= DEEPEST and (level := [one for one in level if isinstance(one, Mapping)]):
        depth, level = depth + 1, [inner for one in level for inner in one.values()]
    return depth


@cache
def _default(name: str) -> Mapping[str, Any]:
    """The part of this name that a spec has where it says nothing of it: its type, and what is not that type's own."""
    model = next(model for model in (ModelSpec, TrainSpec) if name in model.model_fields)
    part: BaseModel = model.model_fields[name].default
    return {**part.model_dump(mode="json", include={"type"}), **part.model_dump(mode="json", exclude_defaults=True)}


def _merged(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in patch.items():
        old = result.get(key)
        if key in NAMED_BY_TYPE:
            old = {"type": old} if isinstance(old, str) else _default(key) if old is None else old
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping):
            keeps = isinstance(old, Mapping) and value.get("type", old.get("type")) == old.get("type")
            result[key] = _merged(old if isinstance(old, Mapping) and keeps else {}, value)
        else:
            result[key] = value
    return result
