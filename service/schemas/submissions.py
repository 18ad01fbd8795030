"""What a submission, a clone and a change of an experiment may hold. Loads the specs, which answers do not."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from cbam_core.spec import ExperimentSpec, Markdown, Priority, Tags

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
