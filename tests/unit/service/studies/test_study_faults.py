"""What may go wrong beside a study, and must harm no other: files, numbers, storage, rows, hiccups, races."""

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from service.cluster.base import GangKey, Launch
from service.comparisons.observation import read_observation
from service.database.models.studies import Study
from service.domain.roles import LOCAL
from service.domain.studies import StudyKind, StudyState
from service.errors import NoPredictions, NotLeading
from service.experiments.actions import act
from service.studies.rows import Reading, Unobserved
from tests.support.dispatching import tick
from tests.support.predictions import IMAGES, write_predictions
from tests.support.studies.comparing import leave_predictions
from tests.support.studies.running import comparison, submitted, until
from workers.protocol.storage import ExperimentFolder

BAD = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(b"PAR1 and nothing else"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-40]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "no metadata": lambda path: pq.write_table(pq.read_table(path).replace_schema_metadata({}), path),
    "no classes": lambda path: pq.write_table(pq.read_table(path).replace_schema_metadata({"classes": "[]"}), path),
    "no labels": lambda path: pq.write_table(pq.read_table(path).drop_columns(["label"]), path),
    "labels of text": lambda path: pq.write_table(_with_labels(path, [str(n) for n in range(2 * IMAGES)]), path),
    "missing labels": lambda path: pq.write_table(_with_labels(path, [None] * 2 * IMAGES), path),
    "nothing of test": lambda path: write_predictions(path, correct=3, part="train"),
}


def _with_labels(path: Path, labels: list[object]) -> pa.Table:
    table = pq.read_table(path)
    return table.set_column(table.schema.get_field_index("label"), "label", pa.array(labels))


@pytest.mark.parametrize("damage", BAD.values(), ids=BAD)
def test_predictions_that_cannot_be_read_hold_up_nobody(damage, dispatcher, studies, cluster):
    def leave(launch: Launch) -> None:
        leave_predictions(launch)
        if launch.spec.name.startswith("does cbam help-plain"):
            damage(ExperimentFolder(launch.storage, launch.key.experiment_id).predictions)

    cluster.export = leave
    study, other = submitted(studies, comparison(seeds=2)), submitted(studies, comparison(name="other", seeds=2))
    until(dispatcher, studies, other.id, StudyState.SUCCEEDED)
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert all(row.trial.correct for row in studies.trials(other.id))
    found = {row.trial.variant: row.trial.correct for row in studies.trials(study.id)}
    assert (found["plain"], found["cbam"] is None) == (None, False)


def test_a_file_that_would_fill_the_memory_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "predictions.parquet"
    write_predictions(path, correct=3)
    assert read_observation(path, "test/top1").correct == 3
    for name in ("MOST_ROWS", "MOST_BYTES"):
        with monkeypatch.context() as patched, pytest.raises(NoPredictions, match="larger than"):
            patched.setattr(f"service.comparisons.observation.{name}", 70)
            read_observation(path, "test/top1")


def test_a_run_without_its_folder_is_read_when_storage_is_back(dispatcher, studies, cluster, settings, clock):
    def hide(launch: Launch) -> None:
        leave_predictions(launch)

    cluster.export = hide
    study = submitted(studies, comparison(seeds=2))
    reading = dispatcher.studies.planners[StudyKind.COMPARISON].read
    away = settings.storage_root.with_name("away")

    def elsewhere(study: Study, of: Unobserved, folder: ExperimentFolder) -> Reading:
        return reading(study, of, ExperimentFolder(away, of.experiment_id))

    dispatcher.studies.planners[StudyKind.COMPARISON].read = elsewhere
    for _ in range(40):
        tick(dispatcher)
        if dispatcher.studies.under_way is not None:
            dispatcher.studies.under_way.exception()
    assert studies.get(study.id).state == StudyState.ACTIVE
    settings.storage_root.rename(away)
    clock.advance(61)
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert all(row.trial.correct for row in studies.trials(study.id))
    away.rename(settings.storage_root)


@pytest.mark.parametrize("error", [NotLeading(), OperationalError("", {}, Exception())])
def test_a_reading_that_could_not_be_written_down_is_made_again(error, dispatcher, studies, monkeypatch):
    study = submitted(studies, comparison(seeds=2))
    noting, failures = dispatcher.studies.rows.note_reading, [error]

    def once(of: Unobserved, reading: Reading) -> None:
        if failures and len([row for row in studies.trials(study.id) if row.experiment.state == "SUCCEEDED"]) == 4:
            raise failures.pop()
        noting(of, reading)

    monkeypatch.setattr(dispatcher.studies.rows, "note_reading", once)
    for _ in range(120):
        with suppress(NotLeading, OperationalError):
            tick(dispatcher)
        if dispatcher.studies.under_way is not None:
            dispatcher.studies.under_way.exception()
    assert not failures
    assert studies.get(study.id).state == StudyState.SUCCEEDED


@pytest.mark.parametrize("spec", ["{}", "5", '{"base": {}}'])
def test_a_comparison_whose_spec_cannot_be_read_fails_and_can_be_deleted(spec, dispatcher, studies, database):
    study, cancelled = submitted(studies), submitted(studies)
    tick(dispatcher, 2)
    with database.writing() as session:
        session.execute(text("UPDATE studies SET spec = :spec"), {"spec": spec})
    studies.wish(cancelled.id, "cancel", by="local")
    until(dispatcher, studies, cancelled.id, StudyState.CANCELLED)
    until(dispatcher, studies, study.id, StudyState.FAILED)
    assert studies.get(study.id).reason == "SPEC_UNREADABLE"
    studies.delete(study.id, by="local")


def test_one_run_on_other_images_is_the_odd_one(dispatcher, studies, cluster):
    def leave(launch: Launch) -> None:
        first = launch.key.experiment_id == cluster.starts[0].experiment_id
        write_predictions(
            ExperimentFolder(launch.storage, launch.key.experiment_id).predictions,
            correct=1 if first else 20,
            images=1 if first else IMAGES,
        )

    cluster.export = leave
    rule = {"pilot": 3, "most": 6, "stop": {"rule": "precision", "half_width": 0.02}}
    study = submitted(studies, comparison(seeds=rule))
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert studies.get(study.id).message == (
        "the number of seeds could not be chosen: 1 of the first 6 runs have no number"
    )


def test_an_experiment_that_is_retried_reopens_its_comparison(dispatcher, studies, store, cluster):
    cluster.steps_per_look = 0
    study = submitted(studies)
    tick(dispatcher, 4)
    first = studies.trials(study.id)[0].trial.experiment_id
    cluster.fail(GangKey(first, 1), "DATA_ERROR")
    cluster.steps_per_look = 5
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert studies.trials(study.id)[0].trial.correct is None
    act(store, first, "retry", caller=LOCAL)
    assert studies.get(study.id).state == StudyState.ACTIVE
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert studies.trials(study.id)[0].trial.correct


def test_a_comparison_does_not_end_over_an_experiment_that_was_just_retried(
    dispatcher, studies, store, monkeypatch, cluster
):
    cluster.steps_per_look = 0
    study = submitted(studies)
    tick(dispatcher, 4)
    first = studies.trials(study.id)[0].trial.experiment_id
    cluster.fail(GangKey(first, 1), "DATA_ERROR")
    cluster.steps_per_look = 5
    applying = dispatcher.studies.rows.apply
    retried = []

    def late(row, trials, steps, specs) -> None:
        if not retried and any(getattr(step, "to", None) == StudyState.SUCCEEDED for step in steps):
            retried.append(act(store, first, "retry", caller=LOCAL))
        applying(row, trials, steps, specs)

    monkeypatch.setattr(dispatcher.studies.rows, "apply", late)
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert retried
    assert studies.trials(study.id)[0].trial.correct


def test_a_tick_decides_no_longer_than_its_time_and_all_have_their_turn(dispatcher, studies, monkeypatch):
    monkeypatch.setattr("service.studies.controller.TICK_SECONDS", 0.0)
    several = [submitted(studies) for _ in range(3)]
    begun = []
    for _ in range(3):
        dispatcher.tick()
        begun.append([len(studies.trials(study.id)) for study in several])
    assert begun == [[2, 0, 0], [2, 2, 0], [2, 2, 2]]
