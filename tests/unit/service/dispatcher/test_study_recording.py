"""When the dispatcher has MLflow told of comparisons: it starts a process, and never waits for it."""

import sys

import pytest
from sqlalchemy import update

from service.comparisons.recording.rows import StudyRunRows
from service.database.models.studies import Study
from service.dispatcher import study_recording
from service.dispatcher.study_recording import EVERY_SECONDS, LOOK_SECONDS, StudyRecording
from service.domain.studies import StudyState
from service.studies.store import StudyStore
from tests.support.studies.rows import GOOD, begun
from tests.support.waiting import wait_until

WAITS = (sys.executable, "-c", "import sys; sys.stdin.read()")
FAILS = (sys.executable, "-c", "import sys; sys.exit(1)")


@pytest.fixture
def studies(database):
    return StudyStore(database)


@pytest.fixture
def recording(database, settings, clock, monkeypatch):
    monkeypatch.setattr(study_recording, "COMMAND", WAITS)
    with_mlflow = settings.model_copy(update={"mlflow_tracking_uri": "http://127.0.0.1:9"})
    recording = StudyRecording(StudyRunRows(database), with_mlflow, clock=clock)
    yield recording
    recording.close()


def started(recording) -> bool:
    recording.tick()
    return recording.process is not None


def test_nothing_is_started_where_there_is_nothing_to_tell(recording):
    assert not started(recording)


def test_nothing_is_started_without_an_mlflow(database, settings, clock, studies):
    begun(studies, [GOOD] * 2)
    assert not started(StudyRecording(StudyRunRows(database), settings, clock=clock))


def test_one_process_at_a_time_and_not_at_every_look_while_a_comparison_goes_on(recording, studies, clock):
    begun(studies, [GOOD] * 2)
    assert started(recording)
    first = recording.process
    clock.advance(2 * EVERY_SECONDS)
    assert started(recording)
    assert recording.process is first
    first.stdin.close()
    wait_until(lambda: first.poll() is not None, "the end of the process")
    first.stdin = None
    recording.started_at = clock()
    clock.advance(LOOK_SECONDS)
    assert not started(recording), "it was told a moment ago"
    clock.advance(EVERY_SECONDS)
    assert started(recording)


def test_one_that_has_ended_is_told_of_at_the_next_look_until_mlflow_has_heard_it(recording, studies, database, clock):
    study = begun(studies, [GOOD] * 2, state=StudyState.SUCCEEDED)
    rows = StudyRunRows(database)
    recording.started_at = clock()
    assert started(recording)
    recording.close()
    (untold,) = rows.untold()
    assert untold.has_ended
    rows.ensure(study.id)
    rows.note_told(untold)
    clock.advance(LOOK_SECONDS)
    assert not started(recording)
    with database.writing() as session:
        session.execute(update(Study).where(Study.id == study.id).values(version=Study.version + 1))
    clock.advance(LOOK_SECONDS)
    assert started(recording), "it was retried"


def test_after_a_failure_it_waits(recording, studies, clock, monkeypatch):
    monkeypatch.setattr(study_recording, "COMMAND", FAILS)
    begun(studies, [GOOD] * 2, state=StudyState.SUCCEEDED)
    assert started(recording)
    wait_until(lambda: recording.process.poll() is not None, "the end of the process")
    assert not started(recording)
    clock.advance(LOOK_SECONDS)
    assert not started(recording)
    clock.advance(EVERY_SECONDS)
    assert started(recording)


def test_a_deleted_comparison_that_mlflow_has_runs_of_is_told_of(recording, studies, database):
    study = begun(studies, [GOOD] * 2, state=StudyState.SUCCEEDED)
    rows = StudyRunRows(database)
    first, second = rows.ensure(study.id), rows.ensure(study.id)
    assert first.creation == second.creation
    assert rows.note_run(study.id, instead_of=None, run_id="one", experiment_id="1")
    assert not rows.note_run(study.id, instead_of=None, run_id="two", experiment_id="1"), "another one was faster"
    studies.delete(study.id, by="local")
    assert rows.deleted() == [study.id]
    assert started(recording)


def test_no_process_to_spare_harms_nothing(recording, studies, clock, monkeypatch):
    begun(studies, [GOOD] * 2, state=StudyState.SUCCEEDED)
    monkeypatch.setattr(study_recording, "COMMAND", ("/no/such/program",))
    assert not started(recording)
    monkeypatch.setattr(study_recording, "COMMAND", WAITS)
    clock.advance(EVERY_SECONDS)
    assert started(recording)
