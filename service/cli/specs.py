"""Specs as the command reads them: YAML files, `--set train.epochs=3`, messages that name the file and the field."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cbam_core.errors import SpecError

if TYPE_CHECKING:
    from cbam_core.spec import ExperimentSpec

Files = Annotated[
    list[Path], typer.Argument(help="Experiment specs, YAML or JSON.", metavar="SPEC...", show_default=False)
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Override a field, e.g. --set train.epochs=3.", metavar="FIELD=VALUE")
]


def read_specs(files: Sequence[Path], overrides: Sequence[str] | None) -> "list[ExperimentSpec]":
    """The specs of all files, each with the overrides. Raises SpecError that says all that is wrong with them."""
    from cbam_core.spec import make_spec, read_fields

    specs, complaints = [], []
    for file in files:
        try:
            specs.append(make_spec(overridden(read_fields(file), overrides or ()), source=str(file)))
        except SpecError as error:
            complaints.append(str(error))
    if complaints:
        raise SpecError("\n".join(complaints))
    return specs


def overridden(fields: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The fields with `a.b=value` put in; the value is YAML. Raises SpecError where it cannot be understood."""
    from cbam_core.spec import parse_yaml

    result = copy.deepcopy(dict(fields))
    for override in overrides:
        path, equals, text = override.partition("=")
        *parents, last = path.split(".")
        if not equals or not all((*parents, last)):
            raise SpecError(f"--set {override}: write FIELD=VALUE, e.g. train.epochs=3")
        inner = result
        for name in parents:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise SpecError(f"--set {override}: {name} holds a value, not fields")
        inner[last] = parse_yaml(text)
    return result
