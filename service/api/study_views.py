"""Views of the rows of studies: what the API answers of comparisons and sweeps."""

from collections.abc import Mapping
from dataclasses import dataclass

from service.comparisons.recording.view_state import view_key
from service.comparisons.stored import control_of, has_probe, has_rule, metric_of, variants_of
from service.database.models.studies import Study
from service.domain.mlflow_links import run_link, view_link
from service.domain.states import HOLDS_GANG, Desired, State
from service.domain.studies import PROBE_BLOCK, STUDY_TERMINAL, StudyKind, StudyReason, StudyState, study_actions
from service.schemas.studies import ComparisonProgress, ComparisonView, StudyLinks, TrialCounts, TrialView
from service.schemas.sweep_views import SweepLinks, SweepView
from service.studies.store import ListedTrial, StudySnapshot
from service.sweeps.stored import method_of, mode_of, shown_limits
from service.sweeps.stored import metric_of as ranked_by

_PLAIN = ("id", "name", "project", "owner", "description", "version", "message", "seed", "created_at", "ended_at")
_OF_COMPARISONS = ("seeds", "seeds_chosen", "seeds_added", "replicates")


@dataclass(frozen=True)
class MlflowPages:
    """Where a comparison is in MLflow; None where it is not, or nobody knows how people reach it."""

    run: str | None = None
    charts: str | None = None


NO_PAGES = MlflowPages()


def mlflow_pages(study_id: str, run: tuple[str, str] | None, base: str | None) -> MlflowPages:
    """The pages of a comparison whose parent run, and MLflow's experiment that it is in, are `run`."""
    if run is None or base is None:
        return NO_PAGES
    run_id, run_in = run
    return MlflowPages(run_link(base, run_id, run_in), view_link(base, run_in, view_key(study_id)))


def comparison_view(
    row: Study,
    counts: Mapping[State | None, int],
    *,
    mlflow: MlflowPages = NO_PAGES,
    with_spec: bool = True,
) -> ComparisonView:
    """The view of a comparison, with how many of its experiments are in which state, and its pages in MLflow."""
    path, state, variants = f"/v1/comparisons/{row.id}", StudyState(row.state), variants_of(row.spec)
    return ComparisonView(
        **{name: getattr(row, name) for name in (*_PLAIN, *_OF_COMPARISONS)},
        state=state,
        desired=Desired(row.desired),
        reason=None if row.reason is None else StudyReason(row.reason),
        actions=study_actions(StudyKind.COMPARISON, state),
        variants=variants,
        control=control_of(row.spec),
        metric=metric_of(row.spec),
        trials=_counted(counts, planned=_planned(row.spec, row.seeds)),
        chosen=row.chosen is not None,
        links=StudyLinks(
            self=path,
            trials=f"{path}/trials",
            decisions=f"{path}/decisions",
            result=f"{path}/result",
            report=f"{path}/report",
            figure=f"{path}/figure.svg",
            experiments=f"/v1/experiments?study={row.id}" if row.chosen is None else f"{path}/trials",
            mlflow=mlflow.run,
            mlflow_charts=mlflow.charts,
        ),
        spec=row.spec if with_spec and isinstance(row.spec, dict) else {},
    )


def progress_view(seen: StudySnapshot, spec: object) -> ComparisonProgress:
    """Where a comparison with this stored spec is."""
    return ComparisonProgress(
        version=seen.version,
        state=seen.state,
        reason=None if seen.reason is None else StudyReason(seen.reason),
        message=seen.message,
        seeds=seen.seeds,
        trials=_counted(seen.counts, planned=_planned(spec, seen.seeds)),
        read=seen.read,
    )


def _planned(spec: object, seeds: int) -> int:
    """How many experiments there will be: trainings, and probes of cost."""
    variants = len(variants_of(spec))
    return variants * seeds + (max(0, variants - 1) if has_probe(spec) else 0)


def sweep_view(row: Study, counts: Mapping[State | None, int], *, with_spec: bool = True) -> SweepView:
    """The view of a sweep, with how many of its experiments are in which state."""
    path, state, limits = f"/v1/sweeps/{row.id}", StudyState(row.state), shown_limits(row)
    return SweepView(
        **{name: getattr(row, name) for name in _PLAIN},
        state=state,
        desired=Desired(row.desired),
        reason=None if row.reason is None else StudyReason(row.reason),
        actions=study_actions(StudyKind.SWEEP, state),
        method=method_of(row.spec),
        metric=ranked_by(row.spec),
        mode=mode_of(row.spec),
        limits=limits,
        trials=_counted(counts, planned=limits.trials or 0),
        links=SweepLinks(
            self=path,
            trials=f"{path}/trials",
            decisions=f"{path}/decisions",
            result=f"{path}/result",
            experiments=f"/v1/experiments?study={row.id}",
        ),
        spec=row.spec if with_spec and isinstance(row.spec, dict) else {},
    )


def _counted(counts: Mapping[State | None, int], *, planned: int) -> TrialCounts:
    return TrialCounts(
        waiting=counts.get(State.QUEUED, 0) + counts.get(State.PAUSED, 0),
        running=sum(counts.get(state, 0) for state in HOLDS_GANG),
        succeeded=counts.get(State.SUCCEEDED, 0),
        failed=counts.get(State.FAILED, 0),
        cancelled=counts.get(State.CANCELLED, 0),
        deleted=counts.get(None, 0),
        planned=planned,
    )


def trial_view(trial: ListedTrial, study: Study) -> TrialView:
    """The view of one run; what it reached is hidden where the comparison hides its means until all have ended."""
    shows = not has_rule(study.spec) or StudyState(study.state) in STUDY_TERMINAL or study.seeds_added
    return TrialView(
        number=trial.number,
        variant=trial.variant,
        kind="probe" if trial.block == PROBE_BLOCK else "training",
        block=trial.block,
        seed=trial.seed,
        experiment_id=trial.experiment_id,
        state=trial.state,
        correct=trial.correct if shows else None,
        images=trial.images,
    )
