"""From the files of all runs to the numbers and verdicts that the service would give, by its own code."""

from collections.abc import Mapping
from datetime import UTC, datetime

from benchmarks.evidence.plan import Plan, PlannedRun
from benchmarks.evidence.records import Record
from service.comparisons.result import result_of
from service.database.models.experiments import Experiment
from service.database.models.studies import Study, Trial
from service.domain.studies import StudyKind, StudyState
from service.schemas.comparison_results import ResultView
from service.studies.store import TrialRow

EPOCH = datetime.fromtimestamp(0, UTC)  # of rows that no database ever holds


def result(plan: Plan, records: Mapping[str, Record]) -> ResultView:
    """What the comparison has shown, of the runs that are recorded: all of them, or it counts as stopped early."""
    comparison = plan.comparison
    study = Study(
        id="evidence",
        kind=StudyKind.COMPARISON,
        name=comparison.name,
        project=next(iter(plan.specs.values())).project,
        description=comparison.description,
        owner="",
        spec=comparison.model_dump(mode="json"),
        specs={name: spec.model_dump(mode="json") for name, spec in plan.specs.items()},
        seed=plan.seed,
        seeds=comparison.first_seeds,
        seeds_chosen=False,
        seeds_added=False,
        classes=next((record.classes for record in records.values() if record.classes), None),
        state=StudyState.SUCCEEDED,
        desired="run",
        message="",
        created_at=EPOCH,
    )
    done = [run for run in plan.runs if run.file in records]
    return result_of(study, [_row(number, run, records[run.file]) for number, run in enumerate(done)])


def _row(number: int, run: PlannedRun, record: Record) -> TrialRow:
    trial = Trial(
        study_id="evidence",
        number=number,
        experiment_id=run.file,  # what the table of runs links to
        variant=run.variant,
        block=run.block,
        seed=run.seed,
        observed_at=None if record.observed is None else EPOCH,
        correct=record.correct,
        images=record.images,
        observed=record.observed,
    )
    experiment = Experiment(
        id=run.file,
        name=run.spec.name,
        spec=record.spec,
        semantics=record.semantics,
        state=record.state,
        desired="run",
        reason=record.reason,
        message="",
        summary=record.summary,
    )
    return TrialRow(trial, experiment)
