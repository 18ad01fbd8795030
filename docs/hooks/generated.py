"""Parts of pages that are generated when the site is built: every field of a spec, every operation of the REST API.

A page asks for one by a comment, `<!-- generated: spec -->` or `<!-- generated: operations -->`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Schema = Mapping[str, Any]
ROOT = Path(__file__).resolve().parents[2]
MOST_WORDS = 12  # of an enumeration, in a cell of a table
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
LENGTHS = {
    "minLength": "at least {:,} long",
    "maxLength": "at most {:,} long",
    "minItems": "at least {:,}",
    "maxItems": "at most {:,}",
    "maxProperties": "at most {:,}",
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put generated text in the place of its comment (an event of MkDocs)."""
    for name, make in GENERATORS.items():
        comment = f"<!-- generated: {name} -->"
        if comment in markdown:
            markdown = markdown.replace(comment, make())
    return markdown


def spec_reference() -> str:
    """Every part of ExperimentSpec with its fields, as Markdown."""
    from cbam_core.spec import ExperimentSpec

    schema = ExperimentSpec.model_json_schema()
    parts = schema["$defs"]
    sections = [_section("ExperimentSpec", schema, "", parts)]
    sections += [_section(name, parts[name], path, parts) for name, path in _paths(schema, parts)]
    return "\n\n".join(sections)


def operations() -> str:
    """Every operation of docs/openapi.json, as one Markdown table for each tag."""
    described = json.loads((ROOT / "docs" / "openapi.json").read_text(encoding="utf-8"))
    tables: dict[str, list[str]] = {}
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            text = _cell(operation.get("description", operation["summary"]).split("\n\n", maxsplit=1)[0])
            rows = tables.setdefault(operation["tags"][0], ["| operation | what it does |", "|---|---|"])
            rows.append(f"| `{method.upper()} {path}` | {text} |")
    return "\n\n".join("\n".join([f"## {tag.capitalize()}", "", *rows]) for tag, rows in tables.items())


GENERATORS = {"spec": spec_reference, "operations": operations}


def _paths(schema: Schema, parts: Schema, above: str = "") -> Iterator[tuple[str, str]]:
    """Name and dotted path of each part below `schema`, depth first; one that is chosen by its type names that too."""
    for field, value in schema["properties"].items():
        path = f"{above}.{field}".lstrip(".")
        for choice in _choices(value):
            if "$ref" in choice:
                name = _name(choice)
                kind = parts[name]["properties"].get("type")
                yield name, f"{path}, type: {_chosen_by(kind)}" if kind else path
                yield from _paths(parts[name], parts, path)


def _chosen_by(kind: Schema) -> str:
    """The type that chooses a part; of many with one prefix, how they are written."""
    return str(kind["const"]) if "const" in kind else kind["enum"][0].partition(":")[0] + ":NAME"


def _section(name: str, part: Schema, path: str, parts: Schema) -> str:
    """One part of a spec: a heading, its docstring, a table of its fields."""
    level = "#" * (2 + path.count(".") + path.count(","))
    title = f"`{path}`" if path else "The whole spec"
    lines = [f"{level} {title} {{#{name.lower()}}}", "", f"`{name}`: {_cell(part['description'])}", ""]
    lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
    for field, value in part["properties"].items():
        meaning = value.get("description") or (parts[_name(value)]["description"] if "$ref" in value else "")
        if field == "type":
            meaning = "chooses this one"
        default = "required" if field in part.get("required", ()) else _default(value["default"])
        lines.append(f"| `{field}` | {_type(value)} | {default} | {_cell(meaning)} |")
    return "\n".join(lines)


def _choices(value: Schema) -> list[Schema]:
    """What a value may be: itself, or one of several."""
    found: list[Schema] = value.get("anyOf") or value.get("oneOf") or [value]
    return found


def _name(value: Schema) -> str:
    """The name of the part that a value refers to."""
    return str(value["$ref"]).removeprefix("#/$defs/")


def _type(value: Schema) -> str:
    """The type of a value, with its bounds, in words."""
    choices = _choices(value)
    if len(choices) > 1:
        return " or ".join(map(_type, choices))
    if "$ref" in value:
        return f"[{_name(value)}](#{_name(value).lower()})"
    if len(value.get("enum", ())) > MOST_WORDS:
        return f"one of {len(value['enum'])}, as `{value['enum'][0]}`"
    if "const" in value or "enum" in value:
        return ", ".join(f"`{word}`" for word in value.get("enum") or [value["const"]])
    words = [f"{_kind(value)}"]
    words += [f"{sign} {value[key]:,}" for key, sign in BOUNDS.items() if key in value]
    words += [text.format(value[key]) for key, text in LENGTHS.items() if key in value and "prefixItems" not in value]
    words += [f"matches `{value['pattern']}`"] if "pattern" in value else []
    return ", ".join(words)


def _kind(value: Schema) -> str:
    """The type of a value without its bounds."""
    if value["type"] == "array":
        fixed = value.get("prefixItems")
        return f"list of {len(fixed)}: {_type(fixed[0])}" if fixed else f"list of: {_type(value['items'])}"
    if value["type"] == "object":
        ((pattern, item),) = value.get("patternProperties", {None: value.get("additionalProperties")}).items()
        key = {"type": "string", **({"pattern": pattern} if pattern else {}), **value["propertyNames"]}
        return f"mapping of {_type(key)} to {_type(item)}"
    return str(value["type"])


def _default(value: Any) -> str:
    """A default as one writes it in YAML; of a part, which kind it is."""
    if isinstance(value, dict) and value:
        return f"type: `{value['type']}`" if "type" in value else "all defaults"
    return f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    """Text for a cell of a table; not as HTML, which `timm:<name>` would be."""
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;").split())
