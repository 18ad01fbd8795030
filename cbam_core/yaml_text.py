"""YAML as specs are written in it: the core schema of YAML 1.2, on PyYAML, whose own is that of YAML 1.1.

So `010` is ten, `1e-4` a number, `1:30`, `yes`, `on` and `2026-01-01` are text, and only `true` and `false` are
booleans. A key that stands twice in a mapping is an error. Merge keys (`<<`) are kept from YAML 1.1.
"""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, ScalarNode

from cbam_core.errors import SpecError

_TAG = "tag:yaml.org,2002:"
_OCTAL, _HEXADECIMAL = "0o", "0x"
_CORE_SCHEMA = (  # YAML 1.2.2, section 10.3.2: a type, what is of it, and the characters that it may begin with
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
    ("merge", r"<<", ["<"]),
)


class WrittenInt(int):
    """A whole number that remembers how it was written: `007` is seven, or a text of three characters."""

    written: str


class WrittenFloat(float):
    """The same of a number with a point: `1.10` may be a version."""

    written: str


def as_text(value: object) -> object:
    """A number as it was written, `true` or `false`, for a field that holds text; anything else as it is."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return getattr(value, "written", None) or repr(value)
    return value


class _Loader(yaml.SafeLoader):
    """Makes values by the core schema, and refuses a key that stands twice."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - a class attribute in PyYAML too; none of YAML 1.1's

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        """The next mapping of the text. Later on, merged keys stand beside its own, and may be the same."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                continue
            line = key.start_mark.line + 1
            if (key.tag, key.value) in lines:
                first = lines[key.tag, key.value]
                raise SpecError(f"line {line}: the key {key.value!r} stands twice; the first time in line {first}")
            lines[key.tag, key.value] = line
        return node

    def construct_yaml_int(self, node: ScalarNode) -> int:
        """A whole number: decimal, whatever zeros it begins with, or `0o17`, `0x1f`."""
        text = self.construct_scalar(node)
        number = WrittenInt(text, {_OCTAL: 8, _HEXADECIMAL: 16}.get(text[:2], 10))
        number.written = text
        return number

    def construct_yaml_float(self, node: ScalarNode) -> float:
        """A number, `.inf` or `.nan`."""
        text = self.construct_scalar(node)
        number = WrittenFloat(re.sub(r"\.(?=[inIN])", "", text))
        number.written = text
        return number


class _Dumper(yaml.SafeDumper):
    """Puts into quotes what either schema would take for something else than text."""


for _name, _pattern, _first in _CORE_SCHEMA:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)
    _Dumper.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)


def _refuse(_loader: _Loader, node: yaml.Node) -> None:
    kind = node.tag.removeprefix(_TAG)
    raise ConstructorError(None, None, f"!!{kind} is no type of YAML's core schema", node.start_mark)


for _name in ("binary", "omap", "pairs", "set", "timestamp"):
    _Loader.add_constructor(_TAG + _name, _refuse)
_Loader.add_constructor(f"{_TAG}int", _Loader.construct_yaml_int)
_Loader.add_constructor(f"{_TAG}float", _Loader.construct_yaml_float)
_Dumper.add_representer(WrittenInt, _Dumper.represent_int)
_Dumper.add_representer(WrittenFloat, _Dumper.represent_float)


def parse_yaml(text: str) -> Any:
    """The value in a YAML (or JSON) text. Raises SpecError that names the line where it is broken."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, KeyError) as error:  # the latter: too many digits, and `!!bool maybe`
        raise SpecError(f"not valid YAML: {error}") from error
    except RecursionError as error:
        raise SpecError("not valid YAML: it is nested too deeply") from error


def to_yaml(value: Any) -> str:
    """Plain values as YAML, which reads the same by YAML 1.1; `parse_yaml` gives them back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
