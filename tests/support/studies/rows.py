"""Studies as a dispatcher would have left them, put into a database without one."""

import hashlib
from collections.abc import Sequence

from sqlalchemy import update

from service.comparisons.submission import base_spec, variant_specs
from service.database.models.studies import Study, Trial
from service.domain.states import Reason, State
from service.domain.studies import StudyKind, StudyState, seed_of
from service.domain.values import utc_now
from service.experiments.insertion import insert_experiment
from service.studies.new import NewStudy
from service.studies.store import StudyStore
from tests.support.studies.compared import comparison_spec

Child = tuple[State, Reason | None]
GOOD: Child = (State.SUCCEEDED, None)
BAD: Child = (State.FAILED, Reason.DATA_ERROR)
DIVERGED: Child = (State.FAILED, Reason.LOSS_NOT_FINITE)
TWO = {"variants": {"plain": {"model.attention": "none"}, "cbam": {}}, "seeds": 3}


def submitted(studies: StudyStore, *, key: str | None = None, **changes: object) -> Study:
    """A comparison of two variants and three seeds, or with changes."""
    spec = comparison_spec(**(TWO | changes))
    new = NewStudy(
        kind=StudyKind.COMPARISON,
        name=spec.name,
        project="tests",
        description="",
        spec=spec.model_dump(mode="json"),
        specs=variant_specs(spec, base_spec(spec)),
        seed=7,
        seeds=spec.first_seeds,
    )
    body_hash = hashlib.sha256(spec.model_dump_json().encode()).hexdigest()
    study, _ = studies.submit(new, owner="local", key=key, body_hash=body_hash, quota_disk=None)
    return study


def begun(
    studies: StudyStore, children: Sequence[Child], *, state: StudyState = StudyState.ACTIVE, **changes: object
) -> Study:
    """The same with these experiments, block by block; those that succeeded were read where the study has ended."""
    study = submitted(studies, **changes)
    spec = comparison_spec(**(TWO | changes))
    specs = [*variant_specs(spec, base_spec(spec)).items()]
    with studies.database.writing() as session:
        for number, (reached, reason) in enumerate(children):
            variant, one = specs[number % len(specs)]
            block = number // len(specs)
            experiment = insert_experiment(session, one, "local", study_id=study.id)
            experiment.state, experiment.reason = reached, reason
            trial = Trial(study_id=study.id, number=number, experiment_id=experiment.id, variant=variant, block=block)
            trial.seed = seed_of(7, block)
            if reached is State.SUCCEEDED and state is not StudyState.ACTIVE:
                trial.observed_at, trial.correct, trial.images = utc_now(), 20, 40
                trial.observed = {"correct": "x" * 1000}
            session.add(trial)
        session.execute(update(Study).where(Study.id == study.id).values(state=state))
    return studies.get(study.id)
