"""The experiment that all experiments of a study begin from, with pointers into the study's spec."""

from collections.abc import Sequence

from cbam_core.spec import ExperimentSpec
from service.errors import InvalidField, InvalidFields
from service.experiments.submission import spec_of
from service.schemas.submissions import FromTemplate

MOST_TAGS = 64
LONGEST_STEM = 80  # characters of the study's name in those of its experiments


def place_of(base: ExperimentSpec | FromTemplate) -> str:
    """The pointer to the base's fields."""
    return "/base" if isinstance(base, ExperimentSpec) else "/base/overrides"


def base_of(base: ExperimentSpec | FromTemplate, *, kind: str, tags: Sequence[str]) -> ExperimentSpec:
    """The base as a whole spec, without the tags that the study gives. Raises InvalidFields with pointers."""
    try:
        spec = spec_of(base)
    except InvalidField as error:
        raise InvalidField(f"/base{error.pointer}", error.detail) from error
    except InvalidFields as error:
        raise InvalidFields([(f"/base{pointer}", detail) for pointer, detail in error.items]) from error
    where = place_of(base)
    if taken := [name for name in tags if name in spec.tags]:
        raise InvalidField(f"{where}/tags/{taken[0]}", f"a {kind} gives its experiments this tag: leave it out")
    if len(spec.tags) + len(tags) > MOST_TAGS:
        raise InvalidField(f"{where}/tags", f"a {kind} adds {len(tags)} tags: give {MOST_TAGS - len(tags)} at most")
    return spec
