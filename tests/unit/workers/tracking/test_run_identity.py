"""Which run of MLflow is whose, on a real store of MLflow's: no tag that a user writes decides it."""

import json

import pytest
from mlflow import MlflowClient

from workers.__main__ import BAD_SPEC, main
from workers.protocol.outcome import Outcome
from workers.protocol.storage import ExperimentFolder, write_once
from workers.tracking.journal import Journal
from workers.tracking.journal_tracker import JournalTracker
from workers.tracking.mlflow_sender import Sender
from workers.tracking.run_identity import CREATION_TAG, EXPERIMENT_TAG, read_run, stored_run_id

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
PROJECT = "identity"


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.fixture
def client(uri):
    return MlflowClient(uri)


@pytest.fixture
def folder(tmp_path):
    return ExperimentFolder(tmp_path, tmp_path.name)


@pytest.fixture
def send(uri):
    """Send what the journal of a folder holds, as a process of its own would, after one more value."""
    opened = []

    def go(folder, step=None):
        journal = Journal(folder.journal)
        opened.append(journal)
        sender = Sender(folder, uri, run_name="a name", project=PROJECT, journal=journal)
        if journal.is_new:
            journal.append({"params": {"lr": "0.1"}})
        if step is not None:
            journal.append_metrics(step, {"loss": 1 / step}, step)
        sender.send(lambda: True)
        return sender.run_id

    yield go
    for journal in opened:
        journal.close()


def told(client, run_id):
    run = client.get_run(run_id)
    return run.data.params, [point.step for point in client.get_metric_history(run_id, "loss")]


def all_of(client, project=PROJECT):
    return client.search_runs([client.get_experiment_by_name(project).experiment_id], max_results=1000)


def test_a_later_sender_goes_on_with_the_run_that_storage_knows(client, folder, send):
    first = send(folder, 1)
    assert stored_run_id(folder) == first
    client.delete_tag(first, EXPERIMENT_TAG)
    client.delete_tag(first, CREATION_TAG)
    assert send(folder, 2) == first
    assert told(client, first) == ({"lr": "0.1"}, [1, 2])


def test_a_run_with_the_tags_of_another_experiment_takes_nothing_from_it(client, folder, send):
    mine = send(folder, 1)
    other = client.create_run(client.get_run(mine).info.experiment_id, tags={EXPERIMENT_TAG: folder.experiment_id})
    client.set_tag(other.info.run_id, CREATION_TAG, client.get_run(mine).data.tags[CREATION_TAG])
    client.delete_tag(mine, EXPERIMENT_TAG)
    assert send(folder, 2) == mine
    assert client.get_run(other.info.run_id).data.metrics == {}


def test_a_tag_is_not_asked_for_before_the_first_run_either(client, folder, send):
    project = client.get_run(send(ExperimentFolder(folder.storage_root, "some"), 1)).info.experiment_id
    trap = client.create_run(project, tags={EXPERIMENT_TAG: folder.experiment_id}).info.run_id
    assert send(folder, 1) != trap


def test_two_storages_with_one_mlflow_do_not_meet(client, tmp_path, send):
    here, there = (ExperimentFolder(tmp_path / name, "same") for name in ("here", "there"))
    runs = {send(here, 1), send(there, 1)}
    assert len(runs) == 2
    assert {send(here, 2), send(there, 2)} == runs
    for run_id in runs:
        assert told(client, run_id) == ({"lr": "0.1"}, [1, 2])


def test_a_run_whose_maker_never_learnt_its_id_is_found_by_its_word(client, folder, send, monkeypatch):
    make = MlflowClient.create_run

    def lost(self, *words, **options):
        make(self, *words, **options)
        raise ConnectionError("the answer got lost")

    monkeypatch.setattr(MlflowClient, "create_run", lost)
    with pytest.raises(ConnectionError):
        send(folder, 1)
    monkeypatch.setattr(MlflowClient, "create_run", make)
    known = read_run(folder)
    assert known.run_id is None
    trap = client.create_run(known.project_id, tags={EXPERIMENT_TAG: folder.experiment_id}).info.run_id
    run_id = send(folder, 2)
    assert run_id != trap
    assert client.get_run(run_id).data.tags[CREATION_TAG] == known.creation
    assert told(client, run_id) == ({"lr": "0.1"}, [1, 2])
    assert [run.info.run_id for run in all_of(client) if run.data.tags.get(CREATION_TAG) == known.creation] == [run_id]


def test_a_deleted_run_is_restored_also_where_its_experiment_was_renamed_and_deleted(client, tmp_path, uri, send):
    folder = ExperimentFolder(tmp_path, "deleted")
    run_id = send(folder, 1)
    project = client.get_run(run_id).info.experiment_id
    client.rename_experiment(project, "renamed")
    client.delete_run(run_id)
    assert send(folder, 2) == run_id
    client.delete_experiment(project)
    assert send(folder, 3) == run_id
    assert client.get_run(run_id).info.lifecycle_stage == "active"
    assert client.get_experiment(project).lifecycle_stage == "active"
    assert told(client, run_id) == ({"lr": "0.1"}, [1, 2, 3])


def test_in_place_of_a_run_that_is_gone_comes_a_new_one_with_everything(client, folder, send):
    first = send(folder, 1)
    known = json.loads(folder.mlflow_run.read_text())
    folder.mlflow_run.write_text(json.dumps(known | {"run_id": "0" * 32}))  # as after `mlflow gc`
    second = send(folder, 2)
    assert second not in (first, "0" * 32)
    assert told(client, second) == ({"lr": "0.1"}, [1, 2])
    assert send(folder, 3) == second


def begin_as_before(client, folder, count):
    """A journal of before run ids were kept, and runs that have its tag."""
    found = client.get_experiment_by_name(PROJECT)
    project = found.experiment_id if found else client.create_experiment(PROJECT)
    journal = Journal(folder.journal)
    journal.append({"params": {"lr": "0.1"}})
    journal.append_metrics(1, {"loss": 1.0}, 1)
    journal.mark_sent(journal.pending()[-1][1])
    journal.close()
    return [client.create_run(project, tags={EXPERIMENT_TAG: folder.experiment_id}).info.run_id for _ in range(count)]


def test_an_experiment_of_before_run_ids_were_kept_goes_on_with_its_run(client, folder, send):
    (old,) = begin_as_before(client, folder, 1)
    assert send(folder, 2) == old == stored_run_id(folder)


def test_of_two_runs_that_say_to_be_an_old_experiment_none_is_taken(client, folder, send):
    both = begin_as_before(client, folder, 2)
    new = send(folder, 2)
    assert new not in both
    assert told(client, new) == ({"lr": "0.1"}, [1, 2])


@pytest.mark.parametrize("text", ["", "[]", '{"colour": 1}', '{"run_id": 5}'])
def test_a_damaged_file_is_as_none(folder, text):
    folder.path.mkdir(parents=True)
    folder.mlflow_run.write_text(text)
    assert stored_run_id(folder) is None


def test_the_tags_of_a_stored_spec_do_not_say_which_run_it_is(client, folder, send, tiny_spec, assign, caplog):
    mine = {EXPERIMENT_TAG: "another", CREATION_TAG: "a", "mlflow.runName": "b", "cbam.attempt": "9", "paper": "cbam"}
    assignment = assign(tiny_spec(tags=mine), storage=str(folder.storage_root), experiment_id=folder.experiment_id)
    write_once(folder.spec, assignment.spec.to_yaml())
    tracker = JournalTracker(assignment)
    tracker.tag({EXPERIMENT_TAG: "another"})  # as older versions wrote what a spec says
    tracker.close(Outcome("failed"))
    assert "cbam.experiment_id, cbam.creation, mlflow.runName, cbam.attempt" in caplog.text
    run = client.get_run(send(folder))
    tags = run.data.tags
    assert (tags[EXPERIMENT_TAG], tags["cbam.attempt"], tags["paper"]) == (folder.experiment_id, "1", "cbam")
    assert run.info.run_name == "a name"


def test_a_spec_with_such_tags_is_refused_also_without_a_service(tmp_path, tiny_spec, capsys):
    spec = tmp_path / "spec.yaml"
    spec.write_text(tiny_spec(tags={EXPERIMENT_TAG: "another"}).to_yaml())
    assert main([str(spec), "--storage", str(tmp_path / "runs")]) == BAD_SPEC
    assert f"tags {EXPERIMENT_TAG}: names below cbam." in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_experiment_whose_first_worker_died_before_it_told_anything_has_no_run_by_a_tag(
    client, folder, send, tiny_spec, assign
):
    (trap,) = begin_as_before(client, ExperimentFolder(folder.storage_root / "other", folder.experiment_id), 1)
    assignment = assign(tiny_spec(), storage=str(folder.storage_root), experiment_id=folder.experiment_id)
    write_once(folder.spec, assignment.spec.to_yaml())
    JournalTracker(assignment).close(Outcome("failed"))
    assert send(folder, 1) not in (None, trap)
