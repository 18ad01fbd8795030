"""What may be submitted: a whole spec, or a template and what is to be changed in it; what may be changed later."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from cbam_core.pointers import complaints
from cbam_core.spec import ExperimentSpec, Markdown, Priority, Tags, spec_fields
from service.errors import InvalidField, InvalidFields, TemplateNotFound
from service.experiments.catalog import from_template

Overrides = Annotated[
    dict[str, Any],
    Field(
        max_length=200,
        description="a JSON merge patch of a spec; null takes a field back to its default, and a key may be a dotted "
        "path, as `train.epochs`",
        examples=[{"train.epochs": 3, "model": {"attention": {"type": "se"}}}],
    ),
]


class FromTemplate(BaseModel):
    """One of `GET /v1/templates`, with changes."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        json_schema_extra={"examples": [{"template": "digits-cbam", "overrides": {"train.epochs": 3}}]},
    )

    template: Annotated[str, Field(min_length=1, max_length=256)]
    overrides: Overrides = {}


def _kind(value: object) -> str:
    is_template = isinstance(value, FromTemplate) or (isinstance(value, Mapping) and "template" in value)
    return "from_template" if is_template else "from_spec"


Submission = Annotated[
    Annotated[ExperimentSpec, Tag("from_spec")] | Annotated[FromTemplate, Tag("from_template")], Discriminator(_kind)
]


class ExperimentChanges(BaseModel):
    """What of an experiment may be changed; what is left out, or null, stays."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, json_schema_extra={"minProperties": 1})

    priority: Priority | None = Field(None, description="the larger number starts first")
    tags: Tags | None = Field(None, description="all tags: those that are not named go; none below cbam. or mlflow.")
    description: Markdown | None = Field(None, description="what it is for, in Markdown")


def spec_of(submission: ExperimentSpec | FromTemplate) -> ExperimentSpec:
    """The spec that is meant. Raises InvalidFields with pointers into the submission."""
    if isinstance(submission, ExperimentSpec):
        return submission
    try:
        fields = from_template(submission.template, submission.overrides)
    except TemplateNotFound as error:
        raise InvalidField("/template", f"there is no template {submission.template!r}; see /v1/templates") from error
    except InvalidField as error:
        raise InvalidField(f"/overrides{error.pointer}", error.detail) from error
    return checked(fields, prefix="/overrides")


def checked(fields: Mapping[str, Any], *, prefix: str = "") -> ExperimentSpec:
    """The spec of these fields. Raises InvalidFields with the pointer of each that is wrong."""
    try:
        return ExperimentSpec.model_validate(fields)
    except ValidationError as error:
        found = complaints(error.errors(include_url=False), fields, fields=spec_fields())
        raise InvalidFields([(f"{prefix}{pointer}", detail) for pointer, detail in found]) from error
