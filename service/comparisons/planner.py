"""A comparison as the controller of studies takes it: rows in, steps out."""

from collections.abc import Sequence

from cbam_core.spec import ExperimentSpec
from service.comparisons.decide import ComparisonSeen, TrialSeen, decide
from service.comparisons.observation import Observation, read_observation
from service.comparisons.statistics import Pairs, Precision
from service.comparisons.submission import trial_spec
from service.database.models.studies import Study
from service.domain.states import Desired, Reason, State
from service.domain.studies import PlannedTrial, Step, StudyReason, StudyState
from service.errors import NoPredictions
from service.schemas.comparisons import ComparisonSpec, SeedPlan
from service.studies.rows import Reading, TrialState, Unobserved
from workers.protocol.storage import ExperimentFolder


class ComparisonPlanner:
    """What comes next in a comparison, and what its runs reached."""

    def steps(self, study: Study, trials: Sequence[TrialState]) -> list[Step]:
        """What to do now."""
        return decide(seen(study, trials))

    def spec(self, study: Study, trial: PlannedTrial) -> ExperimentSpec:
        """What a trial is submitted as."""
        fields = study.specs[trial.variant]
        return trial_spec(fields, study=study.name, variant=trial.variant, block=trial.block, seed=trial.seed)

    def read(self, study: Study, of: Unobserved, folder: ExperimentFolder) -> Reading:
        """What a run reached, by its predictions; where there are none, by the metric that it reported."""
        comparison = comparison_of(study)
        val = next(iter(study.specs.values()))["data"]["val"]
        group = val.get("group") if isinstance(val, dict) else None
        best = comparison.weights == "best"
        try:
            found: Observation = read_observation(folder.predictions, comparison.metric, best=best, group=group)
        except NoPredictions:
            name = comparison.metric.replace("test/", "test_best/") if best else comparison.metric
            top1 = of.metrics.get(name, of.metrics.get(comparison.metric))
            images = of.summary.get(f"{comparison.metric.partition('/')[0]}_images")
            if top1 is None or not images:
                return Reading()
            return Reading(round(top1 * images), images, of.summary.get("classes"))
        return Reading(found.correct, len(found.right), found.classes, found.to_json())


def comparison_of(study: Study) -> ComparisonSpec:
    """The spec of a stored comparison."""
    return ComparisonSpec.model_validate(study.spec, strict=False)


def precision_of(plan: SeedPlan) -> Precision:
    """The rule by which seeds are chosen, as the statistics take it."""
    return Precision(half_width=plan.stop.half_width, pilot=plan.pilot, most=plan.most)


def seen(study: Study, trials: Sequence[TrialState]) -> ComparisonSeen:
    """A comparison's rows as `decide` takes them."""
    comparison = comparison_of(study)
    plan = comparison.plan
    images = next((trial.images for trial in trials if trial.images), None)
    chance = None if study.classes is None or images is None else round(images / study.classes)
    return ComparisonSeen(
        state=StudyState(study.state),
        desired=Desired(study.desired),
        reason=None if study.reason is None else StudyReason(study.reason),
        message=study.message,
        seed=study.seed,
        variants=tuple(study.specs),
        control=comparison.control_name,
        seeds=study.seeds,
        precision=None if plan is None else precision_of(plan),
        pairs=Pairs(comparison.pairs),
        seeds_chosen=study.seeds_chosen,
        images=images,
        trials=[_trial_seen(trial, images, chance) for trial in trials],
    )


def _trial_seen(trial: TrialState, images: int | None, chance: int | None) -> TrialSeen:
    """A run that diverged counts, as chance; one that was measured on other images does not."""
    diverged = trial.state is State.FAILED and trial.reason is Reason.LOSS_NOT_FINITE
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
