"""What a comparison asks for, as whole specs: one for each variant, which differ in what may be compared alone."""

from collections.abc import Iterator, Mapping
from typing import Any

from cbam_core.datasets import OF_FILES
from cbam_core.pointers import MOST_ERROR_ITEMS, pointer_part
from cbam_core.spec import Elastic, ExperimentSpec
from service.domain.spec_patch import apply_patch
from service.domain.studies import PROBE_BLOCK
from service.errors import InvalidField, InvalidFields
from service.experiments.submission import checked
from service.schemas.comparisons import ComparisonSpec
from service.studies.base import LONGEST_STEM, base_of, place_of

HELD_EQUAL = (
    "data",
    "model.weights",
    "resources",
    "checkpoint",
    "retry",
    "export",
    "preemptible",
    "deadline_minutes",
    "name",
    "project",
    "description",
    "tags",
    "priority",
    "train.epochs",
    "train.global_batch_size",
    "train.precision",
    "train.deterministic",
    "train.seed",
    "train.seeds",
)
"""What all variants have alike, but for `data.augment`: a difference in one of these would be its own explanation."""
MAY_DIFFER = "data.augment"
TAGS = ("comparison", "variant")
"""What its experiments, and their MLflow runs, are tagged with."""


def variant_specs(comparison: ComparisonSpec, base: ExperimentSpec) -> dict[str, ExperimentSpec]:
    """The spec of each variant's experiments, but for their names and seeds; in the order in which they were given.

    Raises InvalidFields with pointers into the comparison.
    """
    fields = base.model_dump(mode="json")
    specs: dict[str, ExperimentSpec] = {}
    problems: list[tuple[str, str]] = []
    for name, overrides in comparison.variants.items():
        place = f"/variants/{pointer_part(name)}"
        try:
            specs[name] = checked(apply_patch(fields, overrides), prefix=place)
        except InvalidField as error:
            problems.append((f"{place}{error.pointer}", error.detail))
        except InvalidFields as error:
            problems += error.items
        else:
            problems += [(place, words) for words in _differences(base, specs[name])]
    problems += alike(specs)
    if problems:
        raise InvalidFields(problems[:MOST_ERROR_ITEMS])
    return specs


def trial_spec(base: ExperimentSpec, *, study: str, variant: str, block: int, seed: int) -> ExperimentSpec:
    """The spec of one experiment of a comparison, whose variant's spec is `base`."""
    train = base.train.model_copy(update={"seed": seed})
    tags = {**base.tags, "comparison": study, "variant": variant}
    name = f"{study[:LONGEST_STEM].rstrip()}-{variant}-{'cost' if block == PROBE_BLOCK else block}"
    return base.model_copy(update={"name": name, "train": train, "tags": tags})


def place_of_base(comparison: ComparisonSpec) -> str:
    """The pointer to the base's fields."""
    assert comparison.base is not None
    return place_of(comparison.base)


def base_spec(comparison: ComparisonSpec) -> ExperimentSpec:
    """What all variants share, as a whole spec. Raises InvalidFields with pointers into the comparison."""
    assert comparison.base is not None
    base = base_of(comparison.base, kind="comparison", tags=TAGS)
    where = place_of_base(comparison)
    if isinstance(base.resources.workers, Elastic):
        raise InvalidField(f"{where}/resources/workers", "the number of workers is held equal: give a number")
    if base.train.seeds is not None:
        raise InvalidField(f"{where}/train/seeds", "a comparison draws the seeds itself: leave it out")
    has_no_test = base.data.val == "folder" and base.data.dataset not in OF_FILES  # whose parts are seen later
    if comparison.metric == "test/top1" and has_no_test:
        raise InvalidField(
            "/metric",
            "with `data.val: folder` there is no test; to compare by what was selected on, ask for `val/top1` by name",
        )
    return base.model_copy(update={"project": comparison.project or base.project})


def _differences(base: ExperimentSpec, spec: ExperimentSpec) -> Iterator[str]:
    """What a variant changes and may not."""
    for field in held_equal(base.model_dump(mode="json"), spec.model_dump(mode="json")):
        yield f"a comparison holds `{field}` equal; change it in `base`, for all variants"


def held_equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """The fields in which two whole specs differ and that all variants have alike."""
    yield from (field for field in HELD_EQUAL if _at(one, field) != _at(other, field))


def _at(fields: Mapping[str, Any], path: str) -> Any:
    value: Any = fields
    for part in path.split("."):
        value = value[part]
    if path == "data":
        return {name: item for name, item in value.items() if f"data.{name}" != MAY_DIFFER}
    return value


def alike(specs: Mapping[str, ExperimentSpec], *, place: str = "/variants") -> list[tuple[str, str]]:
    """Variants that are one and the same: their difference would be that of one run twice."""
    seen: dict[str, str] = {}
    found = []
    for name, spec in specs.items():
        first = seen.setdefault(spec.model_dump_json(), name)
        if first != name:
            found.append(
                (f"{place}/{pointer_part(name)}", f"it asks for the same as the variant {first}: nothing would differ")
            )
    return found
