"""A real MLflow server that comes and goes, and what the training leaves in it."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
import requests
import torch
from safetensors.torch import load_file

from cbam_core.spec import ExperimentSpec
from tests.support.mlflow_server import MlflowServer
from tests.support.only_extras import run_with_extras
from workers.attempt import run
from workers.classifier import load_classifier
from workers.protocol.assignment import Assignment
from workers.protocol.fence import Fence
from workers.protocol.outcome import Outcome, read_outcome
from workers.protocol.stop import StopSignal
from workers.tracking.mlflow_tracker import MlflowTracker
from workers.tracking.replay import is_waiting, replay

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = MlflowServer(tmp_path_factory.mktemp("mlflow"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)  # set_tracking_uri sets it too, and for every later test
    return mlflow.MlflowClient(server.uri)


def assignment_for(tmp_path, name, server, **train):
    torch.set_num_threads(1)
    spec = ExperimentSpec.model_validate(
        {
            "name": name,
            "project": "tests",
            "tags": {"paper": "cbam"},
            "model": {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}},
            "data": {"dataset": "digits", "image_size": 8},
            "train": {"epochs": 2, "global_batch_size": 256, **train},
        }
    )
    return Assignment(name, 1, "t1", spec, str(tmp_path), tracking_uri=server.uri)


def nothing(progress):
    """A report that nobody reads."""


def only_run(client, experiment_id):
    project = client.get_experiment_by_name("tests")
    runs = client.search_runs([project.experiment_id], f"tags.`cbam.experiment_id` = '{experiment_id}'")
    assert len(runs) == 1
    return runs[0]


def history(client, run, key):
    return [(value.step, value.value) for value in client.get_metric_history(run.info.run_id, key)]


def journaled(assignment, key):
    lines = map(json.loads, assignment.folder.journal.read_text().splitlines())
    return [(line["step"], line["metrics"][key]) for line in lines if key in line.get("metrics", {})]


def test_a_run_explains_itself(tmp_path, server, client):
    assignment = assignment_for(tmp_path, "explains", server)
    seen = []
    outcome = run(assignment, stop=StopSignal(), report=seen.append)
    found = only_run(client, "explains")
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "explains"
    assert seen[-1].mlflow_run_id == outcome.mlflow_run_id == found.info.run_id
    assert seen[-1].mlflow_experiment_id == outcome.mlflow_experiment_id == found.info.experiment_id
    assert read_outcome(assignment.folder.attempt(1)).tracked, "the service need not ask MLflow for it"

    assert found.data.params["model.backbone"] == "cifar_resnet20"
    assert found.data.params["train.optimizer.lr"] == "0.1"
    tags = found.data.tags
    assert (tags["paper"], tags["cbam.attempt"]) == ("cbam", "1")
    assert tags["version.torch"] == torch.__version__.split("+")[0]
    assert tags["version.mlflow"] == version("mlflow")
    assert tags["cbam.parameters"] == str(outcome.summary["parameters"])
    for key in ("train/loss", "val/loss", "val/top1", "lr", "images_per_second", "epoch"):
        values = history(client, found, key)
        assert values == journaled(assignment, key)
        assert values, key
    assert "system/cpu_utilization_percentage" in found.data.metrics
    paths = {artifact.path for artifact in client.list_artifacts(found.info.run_id)}
    assert {"spec.yaml", "confusion_matrix.png", "weights"} <= paths


def test_a_worker_needs_no_more_of_mlflow_than_its_extra_brings(tmp_path, server, client):
    spec = tmp_path / "skinny.json"
    spec.write_text(assignment_for(tmp_path, "skinny", server).spec.model_dump_json())
    code = "from workers.__main__ import main; sys.exit(main(sys.argv[1:]))"
    words = (spec, "--storage", tmp_path / "runs")
    ran = run_with_extras("worker", code=code, words=words, MLFLOW_TRACKING_URI=server.uri, OMP_NUM_THREADS="1")
    assert ran.returncode == 0, ran.stderr
    found = only_run(client, "skinny")
    assert found.info.status == "FINISHED", ran.stderr
    models = client.search_logged_models([found.info.experiment_id])
    (model,) = [model for model in models if model.source_run_id == found.info.run_id]
    assert model.status == "READY"


def test_a_run_asks_mlflow_for_nothing_but_its_project(tmp_path, server, client, monkeypatch):
    plain_send, asked = requests.Session.send, []

    def send(session, request, **options):
        asked.append(f"{request.method} {request.path_url.partition('?')[0]}")
        return plain_send(session, request, **options)

    monkeypatch.setattr(requests.Session, "send", send)
    run(assignment_for(tmp_path, "calls", server), stop=StopSignal(), report=nothing)
    assert [call for call in asked if call.startswith("GET")] == ["GET /api/2.0/mlflow/experiments/get-by-name"]
    assert "POST /api/2.0/mlflow/runs/update" in asked


def test_the_logged_model_loads_back_and_predicts_the_same(tmp_path, server, client, train_images):
    import mlflow

    from cbam_core.networks import build_network

    assignment = assignment_for(tmp_path, "model", server)
    run(assignment, stop=StopSignal(), report=nothing)
    found = only_run(client, "model")
    (output,) = found.outputs.model_outputs
    model = mlflow.pyfunc.load_model(f"models:/{output.model_id}")
    network = build_network(assignment.spec.model, 10, 1)
    network.load_state_dict(load_file(assignment.folder.weights))
    images, normalised = train_images
    with torch.no_grad():
        expected = network.eval()(normalised)
    torch.testing.assert_close(torch.from_numpy(model.predict(images.numpy())), expected, rtol=1e-4, atol=1e-4)
    signature = model.metadata.signature
    assert (signature.inputs.inputs[0].shape, signature.outputs.inputs[0].shape) == ((-1, 1, 8, 8), (-1, 10))
    assert client.get_logged_model(output.model_id).params == found.data.params


@pytest.mark.timeout(400)
def test_exported_programs_come_back_from_mlflow_and_predict_as_the_network_does(tmp_path, server, client):
    """What a user downloads from the run, without a file of ours: the weights and both programs."""
    import onnxruntime

    assignment = assignment_for(tmp_path, "programs", server, epochs=1)
    exporting = assignment.spec.model_copy(update={"export": ("torch_export", "onnx")})
    outcome = run(replace(assignment, spec=exporting), stop=StopSignal(), report=nothing)
    assert outcome.outcome == "succeeded", outcome.message
    found = only_run(client, "programs")
    folder = Path(client.download_artifacts(found.info.run_id, "weights", str(tmp_path)))
    classifier, shape = load_classifier(folder / "model.safetensors")
    images = torch.rand(3, *shape)
    with torch.no_grad():
        expected = classifier(images)
    torch.testing.assert_close(torch.export.load(folder / "model.pt2").module()(images), expected)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(scores), expected, atol=1e-4, rtol=1e-4)


@pytest.fixture
def train_images():
    from cbam_core.spec import DataSpec
    from workers.data import load_dataset

    digits = load_dataset(DataSpec(dataset="digits", image_size=8))
    images = digits.train.images[:16] / 255
    return images, (images - digits.mean[0]) / digits.std[0]


def test_a_later_attempt_continues_the_run(tmp_path, server, client):
    assignment = assignment_for(tmp_path, "continued", server)
    stop = StopSignal()
    run(assignment, stop=stop, report=lambda progress: progress.step == 7 and stop.request("pause"))
    assert only_run(client, "continued").info.status == "RUNNING"
    run(replace(assignment, attempt=2, token="t2"), stop=StopSignal(), report=nothing)
    found = only_run(client, "continued")
    assert found.info.status == "FINISHED"
    assert found.data.tags["cbam.attempt"] == "2"
    assert [step for step, _ in history(client, found, "train/loss")] == list(range(1, 11))


@pytest.mark.parametrize(("harm", "status"), [("cancel", "KILLED"), ("diverge", "FAILED")])
def test_an_early_end_sets_the_status(tmp_path, server, client, harm, status):
    optimizer = {"type": "sgd", "lr": 1e30 if harm == "diverge" else 0.1}
    assignment = assignment_for(tmp_path, harm, server, optimizer=optimizer)
    stop = StopSignal()
    run(assignment, stop=stop, report=lambda progress: harm == "cancel" and progress.step == 4 and stop.request(harm))
    assert only_run(client, harm).info.status == status


def test_mlflow_away_costs_nothing_and_loses_nothing(tmp_path, server, client, monkeypatch):
    """The server dies, the training goes on and ends; when the server is back, every value arrives, once."""
    monkeypatch.setattr("workers.tracking.mlflow_tracker.CLOSE_SECONDS", 1.0)
    assignment = assignment_for(tmp_path, "away", server)
    server.stop()
    try:
        outcome = run(assignment, stop=StopSignal(), report=nothing)
    finally:
        server.start()
    assert (outcome.outcome, outcome.tracked) == ("succeeded", False)
    assert "MLflow" in assignment.folder.attempt(1).log(0).read_text()

    assert is_waiting(assignment.folder)
    command = [sys.executable, "-m", "workers.tracking.replay", str(tmp_path), "away"]
    subprocess.run(command, env=os.environ | {"MLFLOW_TRACKING_URI": server.uri}, check=True)
    assert not is_waiting(assignment.folder)
    replay(assignment.folder, server.uri)
    found = only_run(client, "away")
    assert found.info.status == "FINISHED"
    for key in ("train/loss", "val/top1", "lr"):
        assert history(client, found, key) == journaled(assignment, key)
    assert len(history(client, found, "train/loss")) == 10


def test_values_wait_in_order_while_mlflow_goes_and_comes_during_a_training(tmp_path, server, client):
    assignment = assignment_for(tmp_path, "flaps", server, epochs=4)

    def flap(progress):
        if progress.phase == "training" and progress.step in (6, 13):
            server.stop() if progress.step == 6 else server.start()

    run(assignment, stop=StopSignal(), report=flap)
    found = only_run(client, "flaps")
    assert history(client, found, "train/loss") == journaled(assignment, "train/loss")
    assert [step for step, _ in history(client, found, "train/loss")] == list(range(1, 21))
    assert found.info.status == "FINISHED"


def test_a_status_that_mlflow_refuses_is_left_to_the_service(tmp_path, server, client, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    def refuse(*_):
        raise MlflowException("refused", INVALID_PARAMETER_VALUE)

    assignment = assignment_for(tmp_path, "no-end", server)
    monkeypatch.setattr(MlflowClient, "set_terminated", refuse)
    outcome = run(assignment, stop=StopSignal(), report=nothing)
    assert (outcome.outcome, outcome.tracked) == ("succeeded", False)
    assert outcome.mlflow_run_id == only_run(client, "no-end").info.run_id


def test_a_value_that_mlflow_refuses_does_not_hold_up_the_others(tmp_path, server, client):
    assignment = assignment_for(tmp_path, "refused", server)
    Fence(assignment).take()
    tracker = MlflowTracker(assignment, server.uri)
    tracker.tag({"a name with ?": "is refused"})
    tracker.log(1, {"train/loss": 1.0})
    assignment.folder.spec.write_text(assignment.spec.to_yaml())
    assert tracker.close(Outcome("cancelled")), "MLflow has all that it takes"
    found = only_run(client, "refused")
    assert history(client, found, "train/loss") == [(1, 1.0)]
    assert found.info.status == "KILLED"
