"""The cluster is changed and stopped: nothing that was accepted is lost."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from service.client.client import Client
from service.domain.states import State
from service.schemas.experiments import ExperimentView
from tests.compose.containers import ComposeCluster, docker, finish, reach_epoch, some_epochs
from tests.support.specs import spec_dict

SUBMITTERS = 2
DOWN_SECONDS = 90.0  # a checkpoint, and seven containers one after the other; Ray alone would drain for 120
CHEAP = {"epochs": 1, "global_batch_size": 256, "optimizer": {"type": "sgd", "lr": 0.05}}


def submit_until(client: Client, stop: threading.Event) -> list[str]:
    """Submit, and cancel, one after another; the ids of all that were accepted."""
    ids = []
    while not stop.is_set() and len(ids) < 200:
        experiment = client.submit(spec_dict(train=CHEAP, priority=-1))
        ids.append(experiment.id)
        experiment.cancel()
        stop.wait(0.2)
    return ids


def test_a_rolling_restart_under_load_loses_nothing(
    cluster: ComposeCluster, client: Client, undisturbed: ExperimentView
):
    experiment = client.submit(some_epochs())
    stop = threading.Event()
    with ThreadPoolExecutor(SUBMITTERS) as pool:
        loads = [pool.submit(submit_until, client, stop) for _ in range(SUBMITTERS)]
        try:
            reach_epoch(experiment, 1)
            for service in ("api", "dispatcher", "api"):
                docker("restart", "--time=30", *cluster.containers(service))
                cluster.wait_until_well(cluster.containers(service))
        finally:
            stop.set()
        accepted = [one for load in loads for one in load.result()]
    assert finish(experiment) is State.SUCCEEDED
    assert len(client.attempts(experiment.id)) == 1
    assert experiment.metrics["val/top1"] == undisturbed.metrics["val/top1"]
    assert len(accepted) > 10
    for one in accepted:
        assert finish(client.get(one)) in (State.CANCELLED, State.SUCCEEDED)


def test_down_and_up_again_with_everything_still_there(
    cluster: ComposeCluster, client: Client, undisturbed: ExperimentView
):
    from mlflow import MlflowClient

    before = {view.id: view.state for view in client.list(page_size=200)}
    running = client.submit(some_epochs())
    reach_epoch(running, 2)
    began = time.monotonic()
    cluster.script("down")
    print(f"\nMEASURED down, while an experiment trains: {time.monotonic() - began:.1f} s")
    assert time.monotonic() - began < DOWN_SECONDS, "something waits for what nobody does"
    assert not cluster.containers("api")
    print(f"\nMEASURED a later start: {cluster.up():.1f} s")
    after = {view.id: view.state for view in client.list(page_size=200)}
    assert after.items() >= before.items()
    assert finish(running) is State.SUCCEEDED
    assert running.metrics["val/top1"] == undisturbed.metrics["val/top1"]
    mlflow = MlflowClient(cluster.mlflow_url)
    assert mlflow.get_run(undisturbed.mlflow_run_id).info.status == "FINISHED"
    assert mlflow.list_artifacts(undisturbed.mlflow_run_id)


def test_a_backup_is_put_back(cluster: ComposeCluster, client: Client, undisturbed: ExperimentView, tmp_path):
    folder = tmp_path / "backup"
    cluster.script("backup", str(folder))
    later = client.submit(spec_dict(train=CHEAP))
    assert finish(later) is State.SUCCEEDED
    cluster.script("restore", str(folder))
    ids = {view.id for view in client.list(page_size=200)}
    assert undisturbed.id in ids
    assert later.id not in ids
    again = client.submit(spec_dict(train=CHEAP))
    assert finish(again) is State.SUCCEEDED
