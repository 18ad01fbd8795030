"""Connections to MLflow are cut again and again while a training tells it its metrics: all arrive, once."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from tests.chaos.lab import ChaosLab
from tests.chaos.proxy import cutting_proxy
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.chaos, pytest.mark.timeout(600)]
EPOCHS = 6


def test_cut_connections_to_mlflow_lose_and_double_no_metric(lab: ChaosLab, chance: random.Random, tmp_path: Path):
    train = {"epochs": EPOCHS, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    project = f"tracking-cut-{chance.random()}"
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec_dict(name="cut", project=project, train=train)))
    with cutting_proxy(lab.record.ports["mlflow"]) as proxy:
        command = [sys.executable, "-m", "workers", "spec.yaml", "--storage=storage", "--id=cut"]
        environment = os.environ | {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{proxy.port}"}
        next_cut = time.monotonic()
        with (
            (tmp_path / "log").open("wb") as log,
            subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log) as training,
        ):

            def ended() -> bool:
                nonlocal next_cut
                if time.monotonic() > next_cut and proxy.cuts < 30:
                    proxy.cut()
                    next_cut = time.monotonic() + chance.uniform(0.02, 0.3)
                return training.poll() is not None

            wait_until(ended, "the training to end", seconds=240)
        assert training.returncode == 0, (tmp_path / "log").read_text()
        assert proxy.cuts > 2
    client = MlflowClient(lab.record.mlflow_url)
    experiment = client.get_experiment_by_name(project)
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    for key in ("val/top1", "train/loss"):
        steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
        assert steps == sorted(set(steps)), f"{key} was told twice"
    assert len(client.get_metric_history(run.info.run_id, "val/top1")) == EPOCHS
