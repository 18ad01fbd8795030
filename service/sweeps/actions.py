"""The use cases of sweeps: what the API does for a user, without HTTP in it."""

import hashlib
import json
from dataclasses import replace
from typing import Any

from cbam_core.spec import ExperimentSpec
from service.database.models.studies import Study
from service.domain.roles import Caller
from service.domain.studies import StudyKind
from service.errors import InvalidField, InvalidFields
from service.experiments import actions as experiments
from service.experiments.initial_weights import with_digest
from service.schemas.previews import PreviewView
from service.schemas.sweep_views import SweepPreview
from service.schemas.sweeps import Grid, LimitChanges, SweepSpec
from service.settings import Settings
from service.studies.base import place_of
from service.studies.new import NewStudy
from service.studies.store import StudyStore
from service.sweeps.space import Params, Space, space_of
from service.sweeps.stored import BASE, sweep_of
from service.sweeps.submission import base_spec, checked_space, trial_spec, trials_of

EXAMPLES = 5  # proposals in a preview


def submit(
    store: StudyStore, settings: Settings, sweep: SweepSpec, *, caller: Caller, key: str | None
) -> tuple[Study, bool]:
    """Accept a sweep, which is the caller's from now on. Returns it and whether it is new: a key may be known.

    Raises InvalidFields with pointers into the sweep, IdempotencyConflict, StudyDeleted, DiskQuotaExceeded.
    """
    fields = sweep.model_dump(mode="json")
    body_hash = hashlib.sha256(json.dumps({"sweep": fields}, sort_keys=True).encode()).hexdigest()
    if (known := store.submitted(key, owner=caller.name, body_hash=body_hash)) is not None:
        return known, False
    check(settings, sweep)
    new = new_sweep(sweep)
    try:
        base = with_digest(store.database, settings, new.specs[BASE])
    except InvalidField as error:
        raise InvalidField(f"{place_of(sweep.base)}{error.pointer}", error.detail) from error
    new = replace(new, specs={BASE: base})
    return store.submit(new, owner=caller.name, key=key, body_hash=body_hash, quota_disk=settings.quota_disk)


def check(settings: Settings, sweep: SweepSpec) -> None:
    """Raise InvalidFields for a base that would be refused of an experiment."""
    experiments.check_text(sweep.model_dump(mode="json", include={"description", "search"}))
    base = base_spec(sweep)
    try:
        experiments.check(settings, base)
    except InvalidFields as error:
        where = place_of(sweep.base)
        raise InvalidFields([(f"{where}{pointer}", detail) for pointer, detail in error.items]) from error


def new_sweep(sweep: SweepSpec) -> NewStudy:
    """What is stored of a sweep. Raises InvalidFields with pointers into it."""
    base = base_spec(sweep)
    space = checked_space(sweep, base)
    return NewStudy(
        kind=StudyKind.SWEEP,
        name=sweep.name,
        project=base.project,
        description=sweep.description,
        spec=sweep.model_dump(mode="json"),
        specs={BASE: base},
        seed=0 if isinstance(sweep.method, Grid) else sweep.method.seed,
        seeds=1,
        limits=sweep.limits.model_dump(mode="json") | {"trials": trials_of(sweep, space)},
    )


def first_trials(sweep: SweepSpec) -> tuple[ExperimentSpec, list[Params]]:
    """The spec of the first trial, and the values of the first ones that are known before anything has ended.

    Raises InvalidFields.
    """
    base = base_spec(sweep)
    space = checked_space(sweep, base)
    count = min(EXAMPLES, trials_of(sweep, space))
    if isinstance(sweep.method, Grid):
        params = [point for point, _ in zip(space.grid(), range(count), strict=False)]
    else:
        params = [space.draw(sweep.method.seed, number) for number in range(count)]
    return trial_spec(base.model_dump(mode="json"), params[0], study=sweep.name, number=0), params


def preview(sweep: SweepSpec, params: list[Params], first: PreviewView) -> SweepPreview:
    """What a sweep would run. `first` is the preview of its first trial."""
    base = base_spec(sweep)
    space = space_of(sweep.search)
    trials = trials_of(sweep, space)
    epochs = max((_epochs(point, base) for point in space.each_end()), default=base.train.epochs)
    return SweepPreview(trials=trials, epochs=trials * epochs, examples=params, first=first)


def _epochs(params: Params, base: ExperimentSpec) -> int:
    epochs: Any = params.get("train.epochs", base.train.epochs)
    return epochs if isinstance(epochs, int) else base.train.epochs


def extend(store: StudyStore, study: Study, limits: LimitChanges, *, caller: Caller, version: int | None) -> Study:
    """Change its limits. Raises SpecError where its spec cannot be read, and what `StudyStore.extend` raises."""
    sweep = sweep_of(study)
    changes = limits.model_dump(mode="json", exclude_unset=True)
    changes = {name: value for name, value in changes.items() if value is not None or name == "hours"}
    space: Space = space_of(sweep.search)
    most = sum(1 for _ in space.grid()) if isinstance(sweep.method, Grid) else None
    return store.extend(study.id, changes, by=caller.name, version=version, most=most)
