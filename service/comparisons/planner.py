"""A comparison as the controller of studies takes it: rows in, steps out."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from cbam_core.errors import SpecError
from cbam_core.spec import ExperimentSpec
from service.comparisons.decide import ComparisonSeen, TrialSeen, decide
from service.comparisons.observation import MOST_ROWS, Observation, read_observation
from service.comparisons.statistics import Pairs, Precision
from service.comparisons.stored import has_probe
from service.comparisons.submission import trial_spec
from service.database.models.studies import Study
from service.domain.states import Desired, has_diverged
from service.domain.studies import PlannedTrial, Step, StudyReason, StudyState
from service.errors import NoPredictions
from service.schemas.comparisons import ComparisonSpec, SeedPlan
from service.studies.controller import StudyPlanner
from service.studies.life import steps_unreadable
from service.studies.rows import Reading, TrialState, Unobserved
from workers.protocol.probe import ProbeNumbers
from workers.protocol.storage import ExperimentFolder

log = logging.getLogger(__name__)
MOST_KEPT = 200  # specs of variants


class ComparisonPlanner(StudyPlanner):
    """What comes next in a comparison, and what its runs reached."""

    def __init__(self) -> None:
        self._variants: dict[tuple[str, str], ExperimentSpec] = {}  # read once: they never change

    def steps(self, study: Study, trials: Sequence[TrialState]) -> list[Step]:
        """What to do now."""
        try:
            return decide(seen(study, trials))
        except SpecError as error:
            return steps_unreadable(_as_stored(study, trials), str(error))

    def spec(self, study: Study, trial: PlannedTrial) -> ExperimentSpec:
        """What a trial is submitted as."""
        base = self._variants.get((study.id, trial.variant))
        if base is None:
            base = ExperimentSpec.model_validate(study.specs[trial.variant], strict=False)
            while len(self._variants) >= MOST_KEPT:
                self._variants.pop(next(iter(self._variants)))
            self._variants[study.id, trial.variant] = base
        return trial_spec(base, study=study.name, variant=trial.variant, block=trial.block, seed=trial.seed)

    def read(self, study: Study, of: Unobserved, folder: ExperimentFolder) -> Reading:
        """What a run reached, by its predictions; where there are none, by the metric that it reported.

        What a probe measured is in its record, and needs no file.
        """
        if of.is_probe:
            return Reading(details=probe_row(of.summary))
        if not (of.is_pruned or folder.path.is_dir()):
            raise FileNotFoundError(f"there is no {folder.path}: is the storage mounted?")
        comparison = comparison_of(study)
        try:
            found: Observation = read_observation(
                folder.predictions, comparison.metric, best=comparison.weights == "best"
            )
        except NoPredictions as error:
            log.warning("judged without single images: %s", error, extra={"experiment_id": of.experiment_id})
            return _reported(of, comparison)
        return Reading(found.correct, len(found.right), found.classes, found.to_json())


def _reported(of: Unobserved, comparison: ComparisonSpec) -> Reading:
    """By the metric and the number of images that a run reported; nothing where these are no such numbers."""
    name = comparison.metric.replace("test/", "test_best/") if comparison.weights == "best" else comparison.metric
    top1 = of.metrics.get(name, of.metrics.get(comparison.metric))
    images = of.summary.get(f"{comparison.metric.partition('/')[0]}_images")
    is_share = isinstance(top1, int | float) and 0 <= top1 <= 1
    if not is_share or not isinstance(images, int) or not 1 <= images <= MOST_ROWS:
        return Reading()
    classes = of.summary.get("classes")
    return Reading(round(top1 * images), images, classes if isinstance(classes, int) and classes > 0 else None)


def probe_row(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a probe measured, as the row of its trial keeps it; None where its record has no such numbers."""
    numbers = ProbeNumbers.from_dict(summary.get("probe"))
    if numbers is None:
        return None
    device = summary.get("device")
    return {"probe": numbers.to_dict(), "device": device if isinstance(device, str) else None}


def comparison_of(study: Study) -> ComparisonSpec:
    """The spec of a stored comparison. Raises SpecError for one that this version cannot read."""
    try:
        return ComparisonSpec.model_validate(study.spec, strict=False)
    except ValidationError as error:
        raise SpecError(f"the stored spec of the comparison cannot be read: {error}") from error


def precision_of(plan: SeedPlan) -> Precision:
    """The rule by which seeds are chosen, as the statistics take it."""
    return Precision(half_width=plan.stop.half_width, pilot=plan.pilot, most=plan.most)


def seen(study: Study, trials: Sequence[TrialState]) -> ComparisonSeen:
    """A comparison's rows as `decide` takes them. Raises SpecError where its spec cannot be read."""
    comparison = comparison_of(study)
    return replace(
        _as_stored(study, trials),
        control=comparison.control_name,
        precision=None if comparison.plan is None else precision_of(comparison.plan),
        pairs=Pairs(comparison.pairs),
    )


def _as_stored(study: Study, trials: Sequence[TrialState]) -> ComparisonSeen:
    """What the rows say beside the spec."""
    sizes = Counter(trial.images for trial in trials if trial.images)
    images = sizes.most_common(1)[0][0] if sizes else None  # one run that was measured on others is the odd one
    chance = round(images / study.classes) if study.classes and images else None
    return ComparisonSeen(
        state=StudyState(study.state),
        desired=Desired(study.desired),
        reason=None if study.reason is None else StudyReason(study.reason),
        message=study.message,
        seed=study.seed,
        variants=tuple(study.specs),
        control="",
        seeds=study.seeds,
        precision=None,
        pairs=Pairs.CONTROL,
        seeds_chosen=study.seeds_chosen,
        owns_runs=study.chosen is None,
        images=images,
        trials=[_trial_seen(trial, images, chance) for trial in trials if not trial.is_probe],
        probe=has_probe(study.spec),
        probes=[_trial_seen(trial, None, None) for trial in trials if trial.is_probe],
    )


def _trial_seen(trial: TrialState, images: int | None, chance: int | None) -> TrialSeen:
    """A run that diverged counts, as chance; one that was measured on other images does not."""
    diverged = has_diverged(trial.state, trial.reason)
    return TrialSeen(
        number=trial.number,
        block=trial.block,
        variant=trial.variant,
        state=trial.state,
        desired=trial.desired,
        reason=trial.reason,
        message=trial.message,
        observed=trial.is_observed,
        correct=chance if diverged else trial.correct if trial.images == images else None,
    )
