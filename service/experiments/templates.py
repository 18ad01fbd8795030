"""The specs of examples/ as templates; the comparisons and sweeps among the examples are none."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from cbam_core.spec import ExperimentSpec, parse_yaml
from service.domain.spec_patch import apply_patch
from service.errors import TemplateNotFound

STUDIES = ("comparisons", "sweeps")  # folders of these; all others hold specs of experiments


@dataclass(frozen=True)
class Template:
    """A spec that comes with the service."""

    name: str
    description: str
    fields: Mapping[str, Any]


@cache
def templates() -> Mapping[str, Template]:
    """The specs of experiments in `examples/`, by name: the path of the file without its ending."""
    with as_file(files("service") / "examples") as root:
        paths = {path.relative_to(root).with_suffix(""): path for path in sorted(Path(root).glob("**/*.yaml"))}
        specs = {str(name): path for name, path in paths.items() if name.parts[0] not in STUDIES}
        return {name: _template(name, path.read_text(encoding="utf-8")) for name, path in specs.items()}


def _template(name: str, text: str) -> Template:
    comments = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comments.append(line.lstrip("# "))
    return Template(name, " ".join(comments), parse_yaml(text))


def from_template(name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a template with the overrides. Raises TemplateNotFound."""
    template = templates().get(name)
    if template is None:
        raise TemplateNotFound(name)
    return apply_patch(template.fields, overrides)


def spec_of(template: Template) -> ExperimentSpec:
    """The whole spec of a template, with every default."""
    return ExperimentSpec.model_validate(template.fields)
