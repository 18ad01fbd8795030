"""What a sweep asks for: its base as a whole spec, its space, and the spec of each trial; what is refused and where."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from itertools import islice
from typing import Any

from cbam_core.pointers import MOST_ERROR_ITEMS, pointer_part
from cbam_core.spec import ExperimentSpec, spec_fields
from cbam_core.suggestions import did_you_mean
from service.domain.spec_patch import apply_patch, kinds_first
from service.errors import InvalidField, InvalidFields
from service.experiments.early_checks import check_backbone
from service.experiments.submission import checked
from service.schemas.sweeps import CMAES, MOST_TRIALS, TPE, Choices, Grid, IntRange, SweepSpec
from service.studies.base import LONGEST_STEM, base_of
from service.sweeps.space import Params, Space, alike, identity, space_of

TAGS = ("sweep", "trial")
"""What its experiments, and their MLflow runs, are tagged with."""
MAY_BE_SEARCHED = ("model", "train", "data.augment", "data.image_size", "data.crop_pct")
REFUSED = {
    "train.seed": "seeds cannot be searched over: the best of several seeds is luck, and no recipe",
    "train.seeds": "seeds cannot be searched over: the best of several seeds is luck, and no recipe",
    "data.val": "every trial is measured on the same images: how val is cut cannot be searched over",
    "data.dataset": "every trial is measured on the same images: give the dataset in `base`",
    "data.root": "every trial is measured on the same images: give the dataset in `base`",
    "model.weights": "which weights a training starts from is part of the question: give them in `base`",
    "test": "a spec has no fields of test, and what is searched for on test is fitted to test",
}
MOST_CORNERS = 200
Items = list[tuple[str, str]]


def base_spec(sweep: SweepSpec) -> ExperimentSpec:
    """What all trials share, as a whole spec. Raises InvalidFields with pointers into the sweep."""
    base = base_of(sweep.base, kind="sweep", tags=TAGS)
    return base.model_copy(update={"project": sweep.project or base.project})


def checked_space(sweep: SweepSpec, base: ExperimentSpec) -> Space:
    """The space of a sweep whose every corner is a valid spec. Raises InvalidFields with pointers into the sweep."""
    problems = [*_names(sweep), *_choices(sweep), *_conditions(sweep), *_points(sweep), *_for_method(sweep)]
    if problems:
        raise InvalidFields(problems[:MOST_ERROR_ITEMS])
    try:
        space = space_of(sweep.search)
    except ValueError as error:
        raise InvalidField("/search", str(error)) from error
    trials_of(sweep, space)
    if problems := _at_corners(sweep, space, base):
        raise InvalidFields(problems[:MOST_ERROR_ITEMS])
    return space


def trials_of(sweep: SweepSpec, space: Space) -> int:
    """How many trials it has in all. Raises InvalidField where that is unclear, or more than there are."""
    wanted = sweep.limits.trials
    if not isinstance(sweep.method, Grid):
        if wanted is None:
            raise InvalidField("/limits/trials", "say how many trials; only a grid has a number of its own")
        return wanted
    size = sum(1 for _ in islice(space.grid(), MOST_TRIALS + 1))
    if size > MOST_TRIALS:
        raise InvalidField(
            "/search", f"the grid has more than {MOST_TRIALS} points: give fewer values, or another method"
        )
    if wanted is not None and wanted > size:
        raise InvalidField("/limits/trials", f"the grid has {size} points, each of which is tried once: give {size}")
    return size if wanted is None else wanted


def trial_spec(base: Mapping[str, Any], params: Params, *, study: str, number: int) -> ExperimentSpec:
    """The spec of one trial, whose other fields are `base`. Raises InvalidField or InvalidFields."""
    fields = checked(apply_patch(base, kinds_first(params)))
    tags = {**fields.tags, "sweep": study, "trial": str(number)}
    return fields.model_copy(update={"name": f"{study[:LONGEST_STEM].rstrip()}-{number}", "tags": tags})


def _place(name: str) -> str:
    return f"/search/{pointer_part(name)}"


def _names(sweep: SweepSpec) -> Iterator[tuple[str, str]]:
    known = {".".join(part for part in path if not part.startswith("=")) for path in spec_fields()}
    for name in sweep.search:
        refusal = next((words for field, words in REFUSED.items() if _overlap(name, field)), None)
        if refusal is not None and name not in ("train", "data", "model"):
            yield _place(name), refusal
        elif name not in known:
            yield _place(name), f"a spec has no such field{did_you_mean(name, known, most=1)}"
        elif not any(name == field or name.startswith(f"{field}.") for field in MAY_BE_SEARCHED):
            yield _place(name), f"it is no part of what is trained: search over {', '.join(MAY_BE_SEARCHED)}"
        elif name in ("model", "train"):
            yield _place(name), "name the fields of it that are searched over"
        for other in sweep.search:
            if name.startswith(f"{other}."):
                yield _place(name), f"{other} is searched over too, and holds it"


def _overlap(name: str, field: str) -> bool:
    return name == field or name.startswith(f"{field}.") or field.startswith(f"{name}.")


def _choices(sweep: SweepSpec) -> Iterator[tuple[str, str]]:
    for name, searched in sweep.search.items():
        if not isinstance(searched, Choices):
            continue
        seen = set[str]()
        for index, value in enumerate(searched.choice):
            if identity(value) in seen:
                yield f"{_place(name)}/choice/{index}", "it stands there twice"
            seen.add(identity(value))


def _conditions(sweep: SweepSpec) -> Iterator[tuple[str, str]]:
    for name, searched in sweep.search.items():
        for parent, values in (searched.when or {}).items():
            place = f"{_place(name)}/when/{pointer_part(parent)}"
            condition = sweep.search.get(parent)
            if condition is None:
                yield place, f"it is not searched over{did_you_mean(parent, sweep.search, most=1)}"
            elif not isinstance(condition, Choices):
                yield place, "a condition names a field that has choices"
            else:
                for index, value in enumerate(values):
                    if not any(alike(value, choice) for choice in condition.choice):
                        yield f"{place}/{index}", f"{value} is none of the choices of {parent}"


def _points(sweep: SweepSpec) -> Iterator[tuple[str, str]]:
    is_grid = isinstance(sweep.method, Grid)
    for name, searched in sweep.search.items():
        if isinstance(searched, Choices):
            continue
        if not is_grid and searched.points is not None:
            yield f"{_place(name)}/points", "only the method grid has points: leave it out"
        elif is_grid and searched.points is None and not isinstance(searched, IntRange):
            yield _place(name), "a grid needs to know how many values of a number to try: give `points`, or a choice"
        elif is_grid and isinstance(searched, IntRange) and searched.points is not None:
            (dimension,) = space_of({name: searched.model_copy(update={"when": None})}).dimensions
            if (distinct := len(dimension.on_grid())) < searched.points:
                yield f"{_place(name)}/points", f"there are only {distinct} such whole numbers"


def _for_method(sweep: SweepSpec) -> Iterator[tuple[str, str]]:
    if isinstance(sweep.method, TPE | CMAES) and find_spec("optuna") is None:
        yield "/method", f"{sweep.method.type} needs the package optuna, which the server does not have: ask for random"
    if not isinstance(sweep.method, CMAES):
        return
    if find_spec("cmaes") is None:
        yield "/method", "cmaes needs the package cmaes, which the server does not have: ask for tpe"
    for name, searched in sweep.search.items():
        if isinstance(searched, Choices):
            yield _place(name), "cmaes searches over numbers, not over choices: ask for tpe"
        elif searched.when is not None:
            yield f"{_place(name)}/when", "cmaes searches over all fields at a time, without conditions: ask for tpe"
    if len(sweep.search) < 2:
        yield "/search", "cmaes adapts how fields go together, and there is one: ask for tpe"


def _at_corners(sweep: SweepSpec, space: Space, base: ExperimentSpec) -> Items:
    """What would be refused of trials with the ends of ranges and with each choice."""
    fields = base.model_dump(mode="json")
    corners = list(islice(space.corners(), MOST_CORNERS + 1))
    found: dict[tuple[str, str], None] = {}
    backbones = set[str]()
    for params in [*(corners if len(corners) <= MOST_CORNERS else ()), *space.each_end()]:
        try:
            spec = trial_spec(fields, params, study=sweep.name, number=0)
            if spec.model.backbone not in backbones:
                backbones.add(spec.model.backbone)
                check_backbone(spec)
        except InvalidFields as error:
            found |= dict.fromkeys(_told(pointer, detail, params) for pointer, detail in error.items)
        if len(found) >= MOST_ERROR_ITEMS:
            break
    return list(found)


def _told(pointer: str, detail: str, params: Params) -> tuple[str, str]:
    """At the searched field that is to blame, where one is; else with all values of the trial."""
    field = ".".join(part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:])
    for name, value in params.items():
        if field == name or field.startswith(f"{name}."):
            return _place(name), f"{value}: {detail}"
    below = [name for name in kinds_first(params) if name.startswith(f"{field}.")]
    if below and (len(below) == 1 or below[0].endswith(".type")):
        return _place(below[0]), f"{params[below[0]]}: {detail}"
    values = ", ".join(f"{name} {value}" for name, value in params.items())
    return "/search", f"with {values}: {pointer} {detail}"
