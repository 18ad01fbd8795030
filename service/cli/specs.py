"""Specs as the command reads them: YAML files, `--set train.epochs=3`, messages that name the file and the field."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cbam_core.errors import SpecError

if TYPE_CHECKING:
    from cbam_core.spec import ExperimentSpec

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Experiment specs, YAML or JSON; - reads standard input.", metavar="[SPEC...]", show_default=False
    ),
]
Template = Annotated[
    str | None, typer.Option("--template", "-t", help="A spec that the server has; `cbam templates` lists them.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a field, e.g. --set train.epochs=3; may be repeated.", metavar="FIELD=VALUE"),
]
STDIN = Path("-")
TEXTS = ("name", "project", "description", "tags")
"""The fields of a spec that hold any text."""


def read_specs(files: Sequence[Path], overrides: Mapping[str, Any]) -> "list[ExperimentSpec]":
    """The specs of all files, each with the overrides. Raises SpecError that says all that is wrong with them."""
    from cbam_core.spec import make_spec
    from service.domain.spec_patch import apply_patch
    from service.errors import InvalidField

    specs, items = [], []
    for file in files:
        try:
            specs.append(make_spec(apply_patch(_fields(file), overrides), source=str(file)))
        except InvalidField as error:
            items.append(f"--set {error.pointer.removeprefix('/')}: {error.detail}")
        except SpecError as error:
            items.append(str(error))
    if items:
        raise SpecError("\n".join(items))
    return specs


def _fields(file: Path) -> dict[str, Any]:
    """What a file says, or standard input: in a container there are no files of the user's."""
    from cbam_core.spec import fields_in, read_fields

    return fields_in(sys.stdin.read(), source="-") if file == STDIN else read_fields(file)


def read_overrides(words: Sequence[str] | None) -> dict[str, Any]:
    """`FIELD=VALUE` words as dotted fields and values; values are YAML. Raises SpecError where one is neither.

    A number for a field of text is the text that was typed: on its way to a server `007` would become 7.
    """
    from cbam_core.yaml_text import as_text, parse_yaml

    result: dict[str, Any] = {}
    for word in words or ():
        field, equals, text = word.partition("=")
        if not equals or not all(field.split(".")):
            raise SpecError(f"--set {word}: write FIELD=VALUE, e.g. train.epochs=3")
        value = parse_yaml(text)
        if field.partition(".")[0] in TEXTS:
            value = {name: as_text(part) for name, part in value.items()} if isinstance(value, dict) else as_text(value)
        result[field] = value
    return result


def need_one(files: Sequence[Path] | None, template: str | None) -> None:
    """Raise a usage error unless there is something to send."""
    if not files and template is None:
        raise typer.BadParameter("name a spec file, or a template with --template", param_hint="SPEC")
