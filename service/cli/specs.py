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
    from pydantic import ValidationError

    specs, complaints = [], []
    for file in files:
        try:
            specs.append(_read(file, overrides or ()))
        except SpecError as error:
            complaints.append(str(error))
        except ValidationError as error:
            complaints += [
                f"{file}: {_pointer(item['loc'])}: {item['msg']}" for item in error.errors(include_url=False)
            ]
    if complaints:
        raise SpecError("\n".join(complaints))
    return specs


def _read(file: Path, overrides: Sequence[str]) -> "ExperimentSpec":
    from cbam_core.spec import ExperimentSpec, parse_yaml

    try:
        value = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read {file}: {error}") from error
    except SpecError as error:
        raise SpecError(f"{file}: {error}") from error
    if not isinstance(value, Mapping):
        raise SpecError(f"{file} holds {type(value).__name__}, not a mapping of spec fields")
    return ExperimentSpec.model_validate(overridden(value, overrides))


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


def _pointer(location: Sequence[int | str]) -> str:
    """RFC 6901."""
    return "/" + "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in location)
