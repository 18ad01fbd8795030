"""What may be submitted: a whole spec, or a template and what is to be changed in it; what may be changed later."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cbam_core.pointers import error_items
from cbam_core.spec import ExperimentSpec, spec_fields
from service.errors import InvalidField, InvalidFields, TemplateNotFound
from service.experiments.templates import from_template
from service.schemas.submissions import FromTemplate


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
        found = error_items(error.errors(include_url=False), fields, fields=spec_fields())
        raise InvalidFields([(f"{prefix}{pointer}", detail) for pointer, detail in found]) from error
