"""What MLflow is told of comparisons, by a real MLflow server that comes and goes, from a process that is killed."""

import json
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import ViewType

from service.comparisons.recording.__main__ import tell_all
from service.comparisons.recording.content import LONGEST_TAG
from service.comparisons.recording.recorder import PARENT, PRIMARY_METRIC, Recorder, Target
from service.comparisons.recording.rows import StudyRunRows
from service.comparisons.recording.view_state import TAG, view_key
from service.comparisons.result import result_of
from service.dispatcher.study_recording import COMMAND
from service.studies.store import StudyStore
from tests.support.mlflow_server import MlflowServer
from tests.support.studies.recorded import EPOCHS, begin, end, finish_block
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    return MlflowClient(server.uri)


@pytest.fixture
def studies(database):
    return StudyStore(database)


@pytest.fixture
def recorder(client, database, studies, settings, server):
    target = Target(server.uri, settings.storage_root, "http://mlflow.example", "http://cbam.example")
    return Recorder(client, StudyRunRows(database), studies, target)


@pytest.fixture
def blocks(database, settings, client):
    """Finish blocks of seeds of a comparison."""

    def finish(study, numbers):
        for block in numbers:
            finish_block(database, study, block, storage=settings.storage_root, client=client)

    return finish


def runs_of(client, study, kind):
    key = "cbam.comparison_id" if kind == "comparison" else "cbam.summary_of"
    project = client.get_experiment_by_name(study.project)
    return client.search_runs([project.experiment_id], f"tags.`{key}` = '{study.id}'", ViewType.ACTIVE_ONLY)


def parent_of(client, study):
    (run,) = runs_of(client, study, "comparison")
    return run


def children_of(client, run):
    return client.search_runs([run.info.experiment_id], f"tags.`{PARENT}` = '{run.info.run_id}'")


def curve(client, run, key):
    return [(point.step, round(point.value, 6)) for point in client.get_metric_history(run.info.run_id, key)]


@pytest.fixture
def ended(recorder, studies, database, blocks):
    """A comparison that has ended and that MLflow was told of."""
    study = begin(studies)
    blocks(study, range(8))
    end(database, study)
    assert tell_all(recorder) == 0
    return studies.get(study.id)


def test_a_reviewer_finds_verdict_table_and_figure(client, recorder, studies, ended, tmp_path):
    study = ended
    parent, view = parent_of(client, study), result_of(studies.get(study.id), studies.trials(study.id))
    note = parent.data.tags["mlflow.note.content"]
    assert view.summary[0].split(".")[0] in note
    assert "| variant | n |" in note
    assert f"http://cbam.example/v1/comparisons/{study.id}/report" in note
    assert f"viewStateShareKey={view_key(study.id)}" in note
    assert parent.data.tags["cbam.verdict"].startswith("cbam against plain: better")
    assert (parent.info.status, parent.data.tags["mlflow.user"], parent.info.run_name) == (
        "FINISHED",
        "ada",
        study.name,
    )
    names = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert names == {"comparison.json", "comparison.svg", "report.html", "report.md"}
    stored = Path(client.download_artifacts(parent.info.run_id, "comparison.json", tmp_path))
    assert json.loads(stored.read_text("utf-8")) == json.loads(view.model_dump_json())

    tags = client.get_experiment(parent.info.experiment_id).tags
    assert tags[PRIMARY_METRIC] == "test/top1"
    assert tags[TAG + view_key(study.id)].startswith("deflate;")
    assert recorder.rows.untold() == [], "there is nothing more to tell"


def test_a_reviewer_finds_a_band_for_each_variant_and_the_runs_of_all_seeds(client, studies, ended):
    study = ended
    parent = parent_of(client, study)
    summaries = {run.data.tags["cbam.variant"]: run for run in runs_of(client, study, "summary")}
    assert {run.info.run_id for run in children_of(client, parent)} == {
        *(run.info.run_id for run in summaries.values()),
        *(one.experiment.mlflow_run_id for one in studies.trials(study.id)),
    }
    assert set(summaries) == {"plain", "cbam"}
    steps = [10 * (epoch + 1) for epoch in range(EPOCHS)]
    plain = [0.5 + 0.01 * step for step in steps]
    mean = sum(block % 3 for block in range(8)) / 8
    assert curve(client, summaries["plain"], "val/top1") == [
        (step, round(value + 0.01 * mean, 6)) for step, value in zip(steps, plain, strict=True)
    ]
    assert curve(client, summaries["plain"], "val/top1 low") == [
        (step, round(value, 6)) for step, value in zip(steps, plain, strict=True)
    ]
    assert curve(client, summaries["plain"], "val/top1 high") == [
        (step, round(value + 0.02, 6)) for step, value in zip(steps, plain, strict=True)
    ]
    assert [step for step, _ in curve(client, summaries["cbam"], "train/loss")] == steps
    metrics = summaries["cbam"].data.metrics
    assert metrics["test/top1"] == pytest.approx((34 + mean) / 40)
    assert metrics["test/top1 over seeds low"] < metrics["test/top1"] < metrics["test/top1 over seeds high"]
    assert (metrics["seeds"], metrics["parameters"]) == (8, 272_474)
    assert summaries["cbam"].data.params["model.attention.type"] == "cbam"


def test_it_grows_with_the_comparison_and_nothing_is_there_twice(client, recorder, studies, database, blocks):
    study = begin(studies)
    blocks(study, range(3))
    assert tell_all(recorder) == 0
    first = parent_of(client, study)
    assert (first.info.status, first.data.tags["cbam.seeds"]) == ("RUNNING", "3 of 8 paired seeds")
    assert {run.data.metrics["seeds"] for run in runs_of(client, study, "summary")} == {2}
    blocks(study, range(3, 8))
    end(database, study)
    assert tell_all(recorder) == 0
    last = parent_of(client, study)
    assert (last.info.run_id, last.info.status, last.data.tags["cbam.seeds"]) == (
        first.info.run_id,
        "FINISHED",
        "8 paired seeds",
    )
    summaries = runs_of(client, study, "summary")
    assert [run.data.metrics["seeds"] for run in summaries] == [8, 8]
    assert len(children_of(client, last)) == 16 + 2


def test_what_mlflow_missed_while_it_was_away_arrives_once_it_is_back(
    client, recorder, studies, database, blocks, server
):
    study = begin(studies)
    blocks(study, range(8))
    server.stop()
    try:
        assert tell_all(recorder) == 1
        end(database, study)
        assert tell_all(recorder) == 1
    finally:
        server.start()
    assert [of.study_id for of in recorder.rows.untold()] == [study.id]
    assert tell_all(recorder) == 0
    assert parent_of(client, study).info.status == "FINISHED"
    assert len(runs_of(client, study, "summary")) == 2
    assert tell_all(recorder) == 0
    assert len(runs_of(client, study, "summary")) == 2


class Killed(BaseException):
    """What ends a process at once: nothing of ours handles it."""


def test_cut_off_after_any_call_and_told_again_nothing_is_there_twice(
    client, recorder, studies, database, blocks, monkeypatch
):
    study = begin(studies, seeds=2)
    blocks(study, range(2))
    end(database, study)
    changing = ("create_run", "log_batch", "set_tag", "set_terminated", "set_experiment_tag", "update_run")
    after = 0

    def cut(name):
        call = getattr(MlflowClient, name)

        def counted(self, *values, **more):
            nonlocal after
            told = call(self, *values, **more)
            after -= 1
            if after == 0:
                raise Killed
            return told

        return counted

    for name in changing:
        monkeypatch.setattr(MlflowClient, name, cut(name))
    for cut_after in range(1, 60):
        after = cut_after
        try:
            for of in recorder.rows.untold():
                recorder.tell(replace(of, state=f"cut after {cut_after}", is_last=False))
            break
        except Killed:
            continue
    else:
        pytest.fail("it never came to its end")
    assert cut_after > 5
    parent = parent_of(client, study)
    assert len(runs_of(client, study, "summary")) == 2
    assert len(children_of(client, parent)) == 4 + 2
    for run in runs_of(client, study, "summary"):
        assert len(curve(client, run, "val/top1")) == EPOCHS, "no point twice"


def test_the_process_tells_all_and_ends_with_whoever_started_it(client, studies, database, blocks, settings, server):
    study = begin(studies, seeds=2)
    blocks(study, range(2))
    end(database, study)
    where = {"database_url": settings.database_url, "storage": str(settings.storage_root), "api_url": None}
    line = json.dumps(where | {"tracking_uri": server.uri, "mlflow_url": server.uri}).encode() + b"\n"
    orphan = subprocess.Popen(COMMAND, stdin=subprocess.PIPE)
    os.kill(orphan.pid, signal.SIGSTOP)
    orphan.stdin.write(line)
    orphan.stdin.close()
    os.kill(orphan.pid, signal.SIGCONT)
    wait_until(lambda: orphan.poll() is not None, "the end of the orphan")
    assert orphan.returncode == 1
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE)
    process.stdin.write(line)
    process.stdin.flush()
    wait_until(lambda: process.poll() is not None, "the end of the process")
    process.stdin.close()
    assert process.returncode == 0
    assert parent_of(client, study).info.status == "FINISHED"
    assert len(runs_of(client, study, "summary")) == 2


def test_words_of_users_stay_text_and_come_after_the_verdict(client, recorder, studies, database, blocks):
    hostile = "<img src=x onerror=alert(1)> | `a` | [b](javascript:alert(1))"
    many = {f"v{number}": {"model.attention": {"type": "se", "reduction": number + 1}} for number in range(2)}
    study = begin(
        studies,
        seeds=2,
        name="a + b. c_d-e",
        description=f"{hostile}\n" * 60,
        variants={"plain": {"model.attention": "none"}, "cbam": {}} | many,
    )
    assert tell_all(recorder) == 0, "nothing is told of one that has not begun"
    blocks(study, range(2))
    end(database, study)
    assert tell_all(recorder) == 0
    parent = parent_of(client, study)
    note = parent.data.tags["mlflow.note.content"]
    assert parent.info.run_name == study.name
    assert "<img" not in note
    assert len(note) <= LONGEST_TAG
    assert note.index("cbam") < note.index("&lt;img"), "the verdict comes first"


def test_a_deleted_parent_run_is_restored_and_a_removed_one_made_anew(client, recorder, studies, database, blocks):
    study = begin(studies)
    blocks(study, range(1))
    assert tell_all(recorder) == 0
    first = parent_of(client, study).info.run_id
    client.delete_run(first)
    blocks(study, range(1, 2))
    assert tell_all(recorder) == 0
    assert parent_of(client, study).info.run_id == first
    client.delete_run(first)
    with database.writing() as session:
        session.get(type(recorder.rows.get(study.id)), study.id).run_id = "0" * 32  # as after `mlflow gc`
    blocks(study, range(2, 3))
    assert tell_all(recorder) == 0
    second = parent_of(client, study)
    assert second.info.run_id != first
    assert len(children_of(client, second)) == 6 + 2


def test_the_runs_outlast_the_comparison_and_say_that_it_was_deleted(client, recorder, studies, database, blocks):
    study = begin(studies, seeds=2)
    blocks(study, range(2))
    assert tell_all(recorder) == 0
    end(database, study)
    studies.delete(study.id, by="ada")  # before MLflow has heard of its end
    assert tell_all(recorder) == 0
    parent = parent_of(client, study)
    assert (parent.info.status, parent.data.tags["cbam.state"]) == ("KILLED", "deleted from the service")
    assert recorder.rows.deleted() == []
    assert recorder.rows.get(study.id) is None


def test_curves_wait_for_storage_that_is_away(client, recorder, studies, database, blocks, settings):
    study = begin(studies, seeds=2)
    blocks(study, range(2))
    end(database, study)
    away = settings.storage_root.rename(settings.storage_root.with_name("away"))
    assert tell_all(recorder) == 1
    away.rename(settings.storage_root)
    assert tell_all(recorder) == 0
    assert {len(curve(client, run, "val/top1")) for run in runs_of(client, study, "summary")} == {EPOCHS}


def test_one_whose_spec_cannot_be_read_is_not_tried_for_ever(recorder, studies, database, blocks):
    study = begin(studies, seeds=2)
    blocks(study, range(1))
    with database.writing() as session:
        session.get(type(study), study.id).spec = {"name": "damaged"}
    assert tell_all(recorder) == 0
    assert recorder.rows.untold() == []
