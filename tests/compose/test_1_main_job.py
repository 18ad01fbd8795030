"""What the cluster is for: a training over several containers, asked for from outside, seen in MLflow, used after."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from service.client.client import Client
from service.domain.states import State
from service.schemas.experiments import ExperimentView
from tests.compose.containers import EPOCHS, ComposeCluster, finish, some_epochs
from tests.support.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_an_experiment_trains_in_two_containers(client: Client, undisturbed: ExperimentView):
    (attempt,) = client.attempts(undisturbed.id)
    assert len(set(attempt.node_ids)) == 2
    assert undisturbed.metrics["val/top1"] > 0.5


def test_its_curves_are_in_mlflow(cluster: ComposeCluster, undisturbed: ExperimentView):
    from mlflow import MlflowClient

    mlflow = MlflowClient(cluster.mlflow_url)
    run_id = undisturbed.mlflow_run_id
    wait_until(lambda: mlflow.get_run(run_id).info.status == "FINISHED", "the run to be finished")
    assert len(mlflow.get_metric_history(run_id, "val/top1")) == EPOCHS
    assert undisturbed.links.mlflow is not None
    assert undisturbed.links.mlflow.startswith(cluster.mlflow_url)


def test_its_model_is_loaded_back_from_mlflow(
    cluster: ComposeCluster, undisturbed: ExperimentView, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow
    import torch

    monkeypatch.setenv("MLFLOW_TRACKING_URI", cluster.mlflow_url)
    run = mlflow.get_run(undisturbed.mlflow_run_id)
    (model,) = mlflow.search_logged_models(
        experiment_ids=[run.info.experiment_id],
        filter_string=f"source_run_id = '{run.info.run_id}'",
        output_format="list",
    )
    classifier = mlflow.pytorch.load_model(model.model_uri, dst_path=str(tmp_path))
    assert classifier(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_its_logs_are_read_over_rest(client: Client, undisturbed: ExperimentView):
    for rank in (0, 1):
        assert any(line for line in client.follow_logs(undisturbed.id, rank=rank))


def test_how_long_a_cold_start_takes(cluster: ComposeCluster, client: Client):
    for container in cluster.containers("ray-worker"):  # what lingers there is gone
        cluster.kill(container)
    cluster.wait_until_well(cluster.containers("ray-worker"))
    began = time.monotonic()
    experiment = client.submit(some_epochs())
    wait_until(lambda: experiment.refresh().view.progress.step > 0, "the first step", seconds=120)
    print(f"\nMEASURED cold, POST to the first step seen over REST, two workers: {time.monotonic() - began:.1f} s")
    assert finish(experiment) is State.SUCCEEDED


def test_the_demo_runs_against_the_cluster(cluster: ComposeCluster):
    there = {"CBAM_URL": cluster.url, "CBAM_TOKEN": cluster.script("token").strip()}
    done = subprocess.run(
        [Path(sys.executable).with_name("cbam"), "demo", "--seeds", "2"],
        env=cluster.environment | there,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "cbam less plain is" in done.stdout
    assert "SUCCEEDED 8/8 runs  2/2 seeds" in done.stderr
