"""A comparison in a database, with the journals of its runs and their runs in a real MLflow."""

import math
from pathlib import Path

from mlflow import MlflowClient
from sqlalchemy import update

from service.comparisons.submission import base_spec, trial_spec, variant_specs
from service.database.engine import Database
from service.database.models.studies import Study, Trial
from service.domain.states import State
from service.domain.studies import StudyKind, StudyState, seed_of
from service.domain.values import utc_now
from service.experiments.insertion import insert_experiment
from service.studies.new import NewStudy
from service.studies.store import StudyStore
from tests.support.studies.compared import SUMMARY, comparison_spec
from workers.protocol.storage import ExperimentFolder
from workers.tracking.journal import Journal
from workers.tracking.mlflow_client import flatten, log_batch
from workers.tracking.run_identity import ensure_project

IMAGES, EPOCHS = 40, 3
GAIN = {"plain": 0, "cbam": 4}


def begin(studies: StudyStore, *, seeds: int = 8, **changes: object) -> Study:
    """A comparison of plain and CBAM that has just been submitted."""
    fields = {"variants": {"plain": {"model.attention": "none"}, "cbam": {}}, "seeds": seeds, "margin": 0.03}
    spec = comparison_spec(**(fields | changes))
    new = NewStudy(
        kind=StudyKind.COMPARISON,
        name=spec.name,
        project="tests",
        description=spec.description,
        spec=spec.model_dump(mode="json"),
        specs=variant_specs(spec, base_spec(spec)),
        seed=7,
        seeds=spec.first_seeds,
    )
    return studies.submit(new, owner="ada", key=None, body_hash="", quota_disk=None)[0]


def finish_block(database: Database, study: Study, block: int, *, storage: Path, client: MlflowClient) -> None:
    """Both variants have trained with the seed of this block, and MLflow has a run of each."""
    project = ensure_project(client, study.project)
    for place, (variant, stored) in enumerate(study.specs.items()):
        base = comparison_spec().base.model_validate(stored, strict=False)
        seed = seed_of(study.seed, block)
        spec = trial_spec(base, study=study.name, variant=variant, block=block, seed=seed)
        curves = curves_of(variant, block)
        run_id = client.create_run(project, run_name=spec.name, tags={"variant": variant}).info.run_id
        log_batch(client, run_id, [{"params": flatten(spec.model_dump(mode="json"))}])
        log_batch(client, run_id, curves)
        client.set_terminated(run_id)
        with database.writing() as session:
            row = insert_experiment(session, spec, study.owner, study_id=study.id)
            row.state, row.summary, row.mlflow_run_id = State.SUCCEEDED, dict(SUMMARY), run_id
            row.tracking_closed = True
            trial = Trial(
                study_id=study.id, number=len(study.specs) * block + place, experiment_id=row.id, variant=variant
            )
            trial.block, trial.seed, trial.observed_at = block, seed, utc_now()
            trial.correct, trial.images = 30 + GAIN.get(variant, 2) + block % 3, IMAGES
            session.add(trial)
        journal = Journal(ExperimentFolder(storage, row.id).journal)
        for record in curves:
            journal.append(record)
        journal.close()


def curves_of(variant: str, block: int) -> list[dict[str, object]]:
    """Records of a journal: a loss every 5 steps, and an evaluation at the end of each epoch of 10."""
    records: list[dict[str, object]] = []
    for step in range(5, 10 * EPOCHS + 1, 5):
        records.append({"metrics": {"train/loss": math.exp(-step / 20) + 0.01 * block}, "step": step, "time": step})
        if step % 10 == 0:
            top1 = 0.5 + 0.01 * step + 0.01 * GAIN.get(variant, 2) + 0.01 * (block % 3)
            records.append({"metrics": {"val/top1": top1, "val/loss": 1 - top1}, "step": step, "time": step})
    return records


def end(database: Database, study: Study, state: StudyState = StudyState.SUCCEEDED) -> None:
    """The comparison has ended."""
    with database.writing() as session:
        ended = update(Study).where(Study.id == study.id)
        session.execute(ended.values(state=state, ended_at=utc_now(), version=Study.version + 1))
