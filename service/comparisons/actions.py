"""The use cases of comparisons: what the API does for a user, without HTTP in it."""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from cbam_core.pointers import pointer_part
from cbam_core.spec import ExperimentSpec
from service.comparisons.chosen import chosen_study
from service.comparisons.stored import has_rule
from service.comparisons.submission import base_spec, place_of_base, variant_specs
from service.database.engine import Database
from service.database.models.studies import Study
from service.domain.roles import Caller
from service.domain.studies import StudyKind, StudyState, seed_of
from service.errors import InvalidField, InvalidFields
from service.experiments import actions as experiments
from service.experiments.initial_weights import same_weights, with_digest
from service.experiments.store import ExperimentStore
from service.schemas.comparisons import MOST_SEEDS, ComparisonSpec
from service.schemas.previews import PreviewView
from service.schemas.studies import ComparisonPreview, PowerView
from service.settings import Settings
from service.studies.new import NewStudy
from service.studies.store import StudyStore
from workers.protocol.probe import ROUNDS, SECONDS

SPREADS = (0.002, 0.003, 0.005, 0.008)
"""Standard deviations over seeds that are common for the top-1 of image classifiers: see docs/design/statistics.md."""


def submit(
    store: StudyStore,
    experiments_there: ExperimentStore,
    settings: Settings,
    comparison: ComparisonSpec,
    *,
    caller: Caller,
    key: str | None,
) -> tuple[Study, bool]:
    """Accept a comparison, which is the caller's from now on. Returns it and whether it is new: a key may be known.

    Raises InvalidFields with pointers into the comparison, IdempotencyConflict, StudyDeleted, DiskQuotaExceeded.
    """
    fields = _as_ever(comparison.model_dump(mode="json"))
    experiments.check_text({"description": comparison.description})
    body_hash = hashlib.sha256(json.dumps({"comparison": fields}, sort_keys=True).encode()).hexdigest()
    if (known := store.submitted(key, owner=caller.name, body_hash=body_hash)) is not None:
        return known, False
    new = (
        _asked_for(store, settings, comparison)
        if comparison.from_ is None
        else chosen_study(experiments_there, comparison)
    )
    return store.submit(new, owner=caller.name, key=key, body_hash=body_hash, quota_disk=settings.quota_disk)


def _as_ever(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields without what later versions have added and it leaves to their defaults: one body, one hash."""
    base = fields["base"]
    told = {name: value for name, value in fields.items() if (name, value) not in (("from", None), ("probe", True))}
    return told | (
        {"base": experiments.as_ever(base, known=("data.val", "train.seeds"))}
        if base is not None and "model" in base
        else {}
    )


def _asked_for(store: StudyStore, settings: Settings, comparison: ComparisonSpec) -> NewStudy:
    """The study that trains what the comparison asks for."""
    specs = checked(store.database, settings, comparison)
    first = next(iter(specs.values()))
    return NewStudy(
        kind=StudyKind.COMPARISON,
        name=comparison.name,
        project=first.project,
        description=comparison.description,
        spec=comparison.model_dump(mode="json"),
        specs=specs,
        seed=study_seed(comparison, specs),
        seeds=comparison.first_seeds,
    )


def checked(database: Database, settings: Settings, comparison: ComparisonSpec) -> dict[str, ExperimentSpec]:
    """The spec of every variant, with the digest of the weights that all start from.

    Raises InvalidFields for what would be refused of an experiment.
    """
    if comparison.from_ is not None:
        raise InvalidField("/from", "these experiments have ended: nothing would run, so there is nothing to preview")
    base = base_spec(comparison)
    specs = variant_specs(comparison, base)
    places = {place_of_base(comparison): base} | {f"/variants/{pointer_part(name)}": specs[name] for name in specs}
    for place, spec in places.items():
        try:
            experiments.check(settings, spec)
        except InvalidFields as error:
            raise InvalidFields([(f"{place}{pointer}", detail) for pointer, detail in error.items]) from error
    try:
        base = with_digest(database, settings, base)
    except InvalidField as error:
        raise InvalidField(f"{place_of_base(comparison)}{error.pointer}", error.detail) from error
    return {name: same_weights(spec, base) for name, spec in specs.items()}  # held equal


def study_seed(comparison: ComparisonSpec, specs: Mapping[str, ExperimentSpec]) -> int:
    """What the seeds of all blocks are drawn from."""
    return next(iter(specs.values())).train.seed if comparison.seed is None else comparison.seed


def preview(
    comparison: ComparisonSpec, specs: Mapping[str, ExperimentSpec], variants: Mapping[str, PreviewView]
) -> ComparisonPreview:
    """What a comparison would run, and what its seeds can show. `variants` are the previews of its experiments."""
    most = comparison.first_seeds if comparison.plan is None else comparison.plan.most
    first = next(iter(specs.values()))
    seed, probes = study_seed(comparison, specs), (len(specs) - 1) * comparison.probe
    return ComparisonPreview(
        runs=most * len(specs),
        first_runs=comparison.first_seeds * len(specs),
        epochs=most * len(specs) * first.train.epochs,
        probes=probes,
        probe_seconds=probes * 2 * ROUNDS * SECONDS,
        seeds=tuple(seed_of(seed, block) for block in range(comparison.first_seeds)),
        power=_power(comparison, most, len(specs)),
        variants=dict(variants),
    )


def _power(comparison: ComparisonSpec, seeds: int, variants: int) -> tuple[PowerView, ...]:
    """By the spread of one variant over seeds; that of a difference is √2 of it where pairing buys nothing."""
    from service.comparisons.statistics import seeds_for, smallest_difference

    tests = variants - 1 if comparison.pairs == "control" else variants * (variants - 1) // 2
    alpha, margin = 0.05 / tests, comparison.margin
    return tuple(
        PowerView(
            sd=sd,
            smallest_difference=smallest_difference(seeds, math.sqrt(2) * sd, alpha),
            seeds_for_margin=None if margin is None else seeds_for(margin, math.sqrt(2) * sd, alpha),
        )
        for sd in SPREADS
    )


def add_seeds(store: StudyStore, study: Study, seeds: int, *, caller: Caller, version: int | None) -> Study:
    """Have it train with `seeds` seeds in all.

    Raises InvalidField for fewer than now, or where its own rule chooses them; IllegalStudyAction, VersionConflict.
    """

    def check(row: Study) -> None:
        if has_rule(row.spec) and row.state != StudyState.SUCCEEDED:
            raise InvalidField("/seeds", "its rule of precision chooses them; they can be added once it has ended")

    if seeds > MOST_SEEDS:
        raise InvalidField("/seeds", f"at most {MOST_SEEDS} seeds")
    return store.add_seeds(study.id, seeds, by=caller.name, version=version, check=check)
