"""What of a change to an OpenAPI document breaks clients that were written for the old one.

Rules, all on JSON Schema as pydantic writes it. For what the server answers: nothing that was there may go, or become
optional, or null, or of another type, and an answer's code may not go. For what clients send: nothing may become
required, or be refused that was taken. What the rules cannot decide (one union against another) counts as a break
where a member has gone; a person then decides, and says so with `scripts/openapi --allow-breaking`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

METHODS = ("get", "put", "post", "patch", "delete")
LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


@dataclass(frozen=True)
class _Side:
    """One document, with what its references mean."""

    document: Mapping[str, Any]

    def resolve(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            schema = self.document["components"]["schemas"][name]
        return schema


def breaking(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each change that breaks clients."""
    return list(_Comparison(_Side(old), _Side(new)).operations())


class _Comparison:
    def __init__(self, old: _Side, new: _Side) -> None:
        self.old, self.new = old, new
        self.seen: set[tuple[str, str, str]] = set()

    def operations(self) -> Iterator[str]:
        for path, methods in self.old.document["paths"].items():
            for method in (name for name in METHODS if name in methods):
                where = f"{method.upper()} {path}"
                there = self.new.document["paths"].get(path, {}).get(method)
                if there is None:
                    yield f"{where}: is gone"
                else:
                    yield from self.operation(where, methods[method], there)

    def operation(self, where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
        if old["operationId"] != new["operationId"]:
            yield f"{where}: the operation {old['operationId']} is called {new['operationId']}"
        yield from self.parameters(where, old.get("parameters", ()), new.get("parameters", ()))
        yield from self.body(where, old.get("requestBody"), new.get("requestBody"))
        for code, answer in old["responses"].items():
            there = new["responses"].get(code)
            if there is None:
                yield f"{where}: no longer answers {code}"
                continue
            for name in answer.get("headers", {}).keys() - there.get("headers", {}).keys():
                yield f"{where} {code}: the header {name} is gone"
            for kind, content in answer.get("content", {}).items():
                if kind not in there.get("content", {}):
                    yield f"{where} {code}: is no longer {kind}"
                elif "schema" in content:
                    yield from self.answer(
                        f"{where} {code}", content["schema"], there["content"][kind].get("schema", {})
                    )

    def parameters(self, where: str, old: Any, new: Any) -> Iterator[str]:
        before = {(one["in"], one["name"]): one for one in old}
        after = {(one["in"], one["name"]): one for one in new}
        for key in before.keys() - after.keys():
            yield f"{where}: the {key[0]} parameter {key[1]} is gone"
        for key, one in after.items():
            known = before.get(key)
            if one.get("required") and not (known and known.get("required")):
                yield f"{where}: the {key[0]} parameter {key[1]} is required now"
            if known:
                yield from self.request(f"{where} {key[1]}", known["schema"], one["schema"])

    def body(self, where: str, old: Any, new: Any) -> Iterator[str]:
        if old is None:
            if new is not None and new.get("required"):
                yield f"{where}: needs a body now"
            return
        if new is None:
            yield f"{where}: takes no body any more"
            return
        if new.get("required") and not old.get("required"):
            yield f"{where}: needs a body now"
        for kind, content in old["content"].items():
            if kind not in new["content"]:
                yield f"{where}: takes no {kind} any more"
            else:
                yield from self.request(f"{where} body", content["schema"], new["content"][kind]["schema"])

    def answer(self, where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
        """What the server says must stay at least as much, and as narrow."""
        if self._known("answer", old, new):
            return
        old, new = self.old.resolve(old), self.new.resolve(new)
        if kinds := _kinds(new) - _kinds(old) if _kinds(old) else set():
            yield f"{where}: may be {', '.join(sorted(kinds))} now"
        if "enum" in old and "enum" not in new:
            yield f"{where}: any value may come now"
        for name, schema in old.get("properties", {}).items():
            there = new.get("properties", {}).get(name)
            if there is None:
                yield f"{where}: the field {name} is gone"
                continue
            if name in old.get("required", ()) and name not in new.get("required", ()):
                yield f"{where}: the field {name} may be missing now"
            yield from self.answer(f"{where}.{name}", schema, there)
        yield from self.parts(where, old, new, self.answer)

    def request(self, where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
        """What clients send must still be taken."""
        if self._known("request", old, new):
            return
        old, new = self.old.resolve(old), self.new.resolve(new)
        if _kinds(new) and (kinds := (_kinds(old) or {"anything"}) - _kinds(new)):
            yield f"{where}: may no longer be {', '.join(sorted(kinds))}"
        if "enum" in new:
            for value in set(map(str, old.get("enum", ["any value"]))) - set(map(str, new["enum"])):
                yield f"{where}: {value} is no longer taken"
        if "const" in new and new["const"] != old.get("const"):
            yield f"{where}: only {new['const']} is taken now"
        if "pattern" in new and new["pattern"] != old.get("pattern"):
            yield f"{where}: must look like {new['pattern']} now"
        yield from _bounds(where, old, new)
        for name in set(new.get("required", ())) - set(old.get("required", ())):
            yield f"{where}: the field {name} is required now"
        closed = new.get("additionalProperties") is False
        if closed and old.get("additionalProperties") is not False and old.get("type") == "object":
            yield f"{where}: unknown fields are refused now"
        for name, schema in old.get("properties", {}).items():
            there = new.get("properties", {}).get(name)
            if there is not None:
                yield from self.request(f"{where}.{name}", schema, there)
            elif closed:
                yield f"{where}: the field {name} is no longer taken"
        yield from self.parts(where, old, new, self.request)

    def parts(self, where: str, old: Mapping[str, Any], new: Mapping[str, Any], compare: Any) -> Iterator[str]:
        """Items, values of a mapping, and members of a union, which are matched by name, type or place."""
        if "items" in old and "items" in new:
            yield from compare(f"{where}[]", old["items"], new["items"])
        if isinstance(old.get("additionalProperties"), Mapping) and isinstance(
            new.get("additionalProperties"), Mapping
        ):
            yield from compare(f"{where}{{}}", old["additionalProperties"], new["additionalProperties"])
        for word in ("anyOf", "oneOf"):
            members = {_label(member): member for member in new.get(word, ())}
            for member in old.get(word, ()):
                label = _label(member)
                if label in members:
                    yield from compare(where, member, members[label])
                elif compare == self.request:
                    yield f"{where}: {label} is gone"
            for label in members.keys() - {_label(member) for member in old.get(word, ())}:
                if compare == self.answer and old.get(word):
                    yield f"{where}: may be {label} now"

    def _known(self, way: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
        """Whether two named schemas are being, or have been, compared: schemas may hold themselves."""
        if "$ref" not in old or "$ref" not in new:
            return False
        key = (way, old["$ref"], new["$ref"])
        known = key in self.seen
        self.seen.add(key)
        return known


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    kind = schema.get("type")
    return set(kind) if isinstance(kind, list) else {kind} if kind else set()


def _label(member: Mapping[str, Any]) -> str:
    return str(member.get("$ref", member.get("type", "anything"))).rsplit("/", 1)[-1]


def _bounds(where: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for names, tighter in ((LOWER_BOUNDS, lambda a, b: b > a), (UPPER_BOUNDS, lambda a, b: b < a)):
        for name in names:
            if name in new and (name not in old or tighter(old[name], new[name])):
                yield f"{where}: {name} is {new[name]} now"
