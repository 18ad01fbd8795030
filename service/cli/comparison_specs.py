"""Comparisons and sweeps as the command reads them: a YAML file, `--set base.train.epochs=3`, the examples."""

import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cbam_core.errors import SpecError
from service.cli.specs import STDIN

if TYPE_CHECKING:
    from service.schemas.comparisons import ComparisonSpec
    from service.schemas.sweeps import SweepSpec

File = Annotated[
    Path, typer.Argument(help="A comparison, YAML or JSON; - reads standard input.", metavar="FILE", show_default=False)
]
SweepFile = Annotated[
    Path, typer.Argument(help="A sweep, YAML or JSON; - reads standard input.", metavar="FILE", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a field, e.g. --set base.train.epochs=3 or --set seeds=12; may be repeated."),
]
BASE, VARIANTS, SEARCH, OVERRIDES = "base", "variants", "search", "overrides"


def example(name: str = "comparisons/does-cbam-help.yaml") -> str:
    """The comparison or sweep to begin with, as YAML with comments."""
    return (files("service") / "examples" / name).read_text(encoding="utf-8")


def read_comparison_file(file: Path, overrides: Mapping[str, Any]) -> "ComparisonSpec":
    """The comparison in a file, or of standard input, with the overrides. Raises SpecError that says all faults."""
    from service.client.comparing.specs import make_study
    from service.schemas.comparisons import ComparisonSpec

    return make_study(ComparisonSpec, _fields(file, overrides), source=str(file))


def read_sweep_file(file: Path, overrides: Mapping[str, Any]) -> "SweepSpec":
    """The sweep in a file, or of standard input, with the overrides. Raises SpecError that says all faults."""
    from service.client.comparing.specs import make_study
    from service.schemas.sweeps import SweepSpec

    return make_study(SweepSpec, _fields(file, overrides), source=str(file))


def _fields(file: Path, overrides: Mapping[str, Any]) -> dict[str, Any]:
    from cbam_core.spec import fields_in, read_fields
    from service.errors import InvalidField

    fields = fields_in(sys.stdin.read(), source="-") if file == STDIN else read_fields(file)
    try:
        for field, value in overrides.items():
            fields = _with_field(fields, field, value)
    except InvalidField as error:
        raise SpecError(f"--set {error.pointer.removeprefix('/')}: {error.detail}") from error
    return fields


def _with_field(fields: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    """One field changed. Below `base` and `variants` are fields of an experiment's spec, or overrides of them."""
    from service.domain.spec_patch import apply_patch

    head, _, rest = field.partition(".")
    inner = fields.get(head)
    if head == BASE and rest and isinstance(inner, dict):
        return {**fields, BASE: _changed_base(inner, rest, value)}
    if head == SEARCH and rest and isinstance(inner, dict):
        others = {name: searched for name, searched in inner.items() if name != rest}
        return {**fields, SEARCH: others if value is None else others | {rest: value}}
    if head == VARIANTS and rest and isinstance(inner, dict):
        names = [name for name in map(str, inner) if rest == name or rest.startswith(f"{name}.")]
        name = max(names, key=len, default=rest.partition(".")[0])  # the name of a variant may have dots
        path = rest[len(name) + 1 :]
        if value is None and not path:
            return {**fields, VARIANTS: {other: what for other, what in inner.items() if other != name}}
        what = _with_override(inner.get(name) or {}, path, value) if path else value
        return {**fields, VARIANTS: {**inner, name: what}}
    return apply_patch(fields, {field: value})


def _changed_base(base: dict[str, Any], field: str, value: Any) -> dict[str, Any]:
    from service.domain.spec_patch import apply_patch

    if "template" not in base:
        return apply_patch(base, {field: value})
    if field in ("template", OVERRIDES):
        return {**base, field: value}
    overrides = base.get(OVERRIDES) or {}
    return {**base, OVERRIDES: _with_override(overrides, field.removeprefix(f"{OVERRIDES}."), value)}


def _with_override(overrides: Any, field: str, value: Any) -> Any:
    """The override goes last, so that it holds against one above it of the same field; null takes a field back."""
    if not isinstance(overrides, dict):
        return {field: value}
    return {name: old for name, old in overrides.items() if name != field} | {field: value}
