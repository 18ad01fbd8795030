"""What MLflow is told of the end of experiments: a real store of MLflow's, and rows that one cannot close."""

import json

import pytest
from mlflow import MlflowClient

from cbam_core.spec import ExperimentSpec
from service.database.models.experiments import Experiment
from service.dispatcher.mlflow_runs import LONGEST_PAUSE_SECONDS, RunFinalizer
from service.dispatcher.store import AttemptEnd
from service.domain.states import Move, Reason, State
from tests.support.dispatching import until
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.protocol.outcome import Outcome
from workers.protocol.storage import ExperimentFolder, make_folder, write_atomically
from workers.tracking.journal import Journal
from workers.tracking.run_identity import EXPERIMENT_TAG

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def client(mlflow_uri):
    return MlflowClient(mlflow_uri)


@pytest.fixture
def closer(dispatcher_store, settings, mlflow_uri, clock):
    closer = RunFinalizer(dispatcher_store, storage=settings.storage_root, tracking_uri=mlflow_uri, clock=clock)
    yield closer
    closer.pool.shutdown(wait=True)


def fail(dispatcher_store, store, experiment_id: str) -> Experiment:
    """Have the next attempt of the only one in the queue fail."""
    dispatcher_store.claim(dispatcher_store.queue()[0], 1)
    ((row, _),) = dispatcher_store.live()
    dispatcher_store.apply(row, Move(State.FAILED, Reason.USER_ERROR, "made to fail"), AttemptEnd())
    return store.get(experiment_id)


def failed(dispatcher_store, store, client) -> tuple[Experiment, str]:
    """An experiment that failed, and its run, which does not know yet."""
    row = fail(dispatcher_store, store, store.submit(spec())[0].id)
    project = client.get_experiment_by_name("tests")
    project_id = project.experiment_id if project else client.create_experiment("tests")
    return row, client.create_run(project_id, tags={EXPERIMENT_TAG: row.id}).info.run_id


def round_of(closer) -> None:
    closer.tick()
    if closer.under_way is not None:
        wait_until(closer.under_way.done, "the closer's round")
        closer.not_before = float("inf")
        closer.tick()
        closer.not_before = 0.0


@pytest.mark.parametrize(
    ("record", "state", "closed"),
    [
        ({"outcome": "succeeded", "tracked": True}, State.SUCCEEDED, True),
        ({"outcome": "succeeded", "tracked": False}, State.SUCCEEDED, False),
        ({"outcome": "failed", "reason": "DATA_ERROR", "tracked": False}, State.FAILED, False),
    ],
)
def test_mlflow_is_not_told_again_what_the_worker_has_told_it(dispatcher, store, settings, record, state, closed):
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.RUNNING)
    (attempt,) = store.attempts(row.id)
    folder = ExperimentFolder(settings.storage_root, row.id).attempt(1)
    make_folder(folder.path)
    Outcome(**record, attempt=1, token=attempt.token, mlflow_run_id="the run").record(folder)
    until(dispatcher, store, row.id, state)
    assert (store.get(row.id).tracking_closed, store.get(row.id).mlflow_run_id) == (closed, "the run")


def test_a_result_that_is_older_than_a_retry_closes_nothing(dispatcher_store, store):
    read = fail(dispatcher_store, store, store.submit(spec())[0].id)
    store.requeue(read.id)
    dispatcher_store.close_run(read, "run of attempt 1")
    assert not store.get(read.id).tracking_closed, "it waits, and is not at an end"
    again = fail(dispatcher_store, store, read.id)
    dispatcher_store.close_run(read, "run of attempt 1")
    assert (again.attempt, store.get(read.id).tracking_closed, store.get(read.id).mlflow_run_id) == (2, False, None)
    dispatcher_store.close_run(again, "the run")
    assert (store.get(read.id).tracking_closed, store.get(read.id).mlflow_run_id) == (True, "the run")


def test_a_run_that_is_known_is_not_forgotten(dispatcher_store, store):
    row = fail(dispatcher_store, store, store.submit(spec())[0].id)
    dispatcher_store.close_run(row, "the run")
    dispatcher_store.close_run(row, None)
    assert store.get(row.id).mlflow_run_id == "the run"


def test_runs_that_mlflow_has_no_more_are_closed(dispatcher_store, store, client, closer):
    removed, removed_run = failed(dispatcher_store, store, client)
    deleted, deleted_run = failed(dispatcher_store, store, client)
    client.delete_run(deleted_run)
    with store.database.writing() as session:
        session.get(Experiment, removed.id).mlflow_run_id = "0" * 32  # as after `mlflow gc`
        session.get(Experiment, deleted.id).mlflow_run_id = deleted_run
    client.delete_run(removed_run)
    round_of(closer)
    assert store.get(removed.id).tracking_closed
    assert store.get(deleted.id).tracking_closed


def test_a_run_that_cannot_be_closed_holds_up_no_other(dispatcher_store, store, client, closer, settings, clock):
    damaged, damaged_run = failed(dispatcher_store, store, client)
    folder = ExperimentFolder(settings.storage_root, damaged.id)
    Journal(folder.journal).append({"artifact": str(folder.path / "gone.bin")})
    folder.spec.write_text(ExperimentSpec.model_validate(damaged.spec).to_yaml())
    unread, unread_run = failed(dispatcher_store, store, client)
    journal = ExperimentFolder(settings.storage_root, unread.id).journal
    journal.parent.mkdir(parents=True)
    journal.write_text("{torn\n")
    good, good_run = failed(dispatcher_store, store, client)
    waits, waits_run = failed(dispatcher_store, store, client)
    folder = ExperimentFolder(settings.storage_root, waits.id)
    Journal(folder.journal).append({"metrics": {"loss": 1.0}, "step": 1, "time": 1})
    folder.spec.write_text(ExperimentSpec.model_validate(waits.spec).to_yaml())

    round_of(closer)
    assert [store.get(row.id).tracking_closed for row in (damaged, unread, good, waits)] == [False, False, True, True]
    assert {client.get_run(run).info.status for run in (damaged_run, unread_run, good_run, waits_run)} == {"FAILED"}
    assert client.get_run(waits_run).data.metrics == {"loss": 1.0}
    journal.unlink()
    round_of(closer)
    assert not store.get(unread.id).tracking_closed, "it waits before it is tried again"
    clock.advance(LONGEST_PAUSE_SECONDS)
    round_of(closer)
    assert store.get(unread.id).tracking_closed


def test_a_run_with_the_tag_of_an_experiment_is_not_closed_in_its_place(
    dispatcher_store, store, client, closer, settings
):
    row, other_run = failed(dispatcher_store, store, client)
    mine = client.create_run(client.get_run(other_run).info.experiment_id).info.run_id
    folder = ExperimentFolder(settings.storage_root, row.id)
    write_atomically(folder.mlflow_run, json.dumps({"creation": "a word", "run_id": mine}))
    round_of(closer)
    assert (store.get(row.id).tracking_closed, store.get(row.id).mlflow_run_id) == (True, mine)
    assert [client.get_run(run).info.status for run in (mine, other_run)] == ["FAILED", "RUNNING"]


def test_an_experiment_that_never_had_a_run_is_given_none_by_a_tag(dispatcher_store, store, client, closer, settings):
    row, other_run = failed(dispatcher_store, store, client)
    folder = ExperimentFolder(settings.storage_root, row.id)
    write_atomically(folder.mlflow_run, json.dumps({"creation": "a word"}))
    round_of(closer)
    assert (store.get(row.id).tracking_closed, store.get(row.id).mlflow_run_id) == (True, None)
    assert client.get_run(other_run).info.status == "RUNNING"
