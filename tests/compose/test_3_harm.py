"""Every container is killed while experiments run: each of them ends, and ends right.

Right means: the same bits as the run that nobody disturbed, every value in MLflow once and in order, and another
attempt only where workers were lost.
"""

import itertools

import pytest

from service.client.client import Client
from service.client.experiment import ExperimentHandle
from service.domain.states import State
from service.schemas.experiments import ExperimentView
from tests.compose.containers import EPOCHS, ComposeCluster, docker, finish, is_there, reach_epoch, some_epochs
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until

METRICS = ("val/top1", "val/loss", "train/loss")
WITHOUT_WORKERS = ("api", "dispatcher", "mlflow", "db")  # nobody who trains is among them


def assert_right(
    cluster: ComposeCluster, client: Client, experiment: ExperimentHandle, undisturbed: ExperimentView
) -> int:
    """Everything that must be true of an experiment that was disturbed; the number of its attempts."""
    from mlflow import MlflowClient

    assert experiment.state is State.SUCCEEDED, experiment.view.message
    assert {key: experiment.metrics[key] for key in METRICS} == {key: undisturbed.metrics[key] for key in METRICS}
    attempts = client.attempts(experiment.id)
    assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
    for before, after in itertools.pairwise(attempts):
        assert before.ended_at is not None
        assert before.ended_at <= after.started_at
    mlflow, run_id = MlflowClient(cluster.mlflow_url), experiment.view.mlflow_run_id
    wait_until(lambda: mlflow.get_run(run_id).info.status == "FINISHED", "the run to be finished", seconds=120)
    points = mlflow.get_metric_history(run_id, "val/top1")
    steps = [point.step for point in points]
    assert steps == sorted(set(steps))
    assert len(steps) == EPOCHS
    assert points[-1].value == undisturbed.metrics["val/top1"]
    return len(attempts)


@pytest.mark.parametrize("service", [*WITHOUT_WORKERS, "ray-worker", "ray-head"])
def test_a_container_is_killed(cluster: ComposeCluster, client: Client, undisturbed: ExperimentView, service: str):
    running, waiting = client.submit(some_epochs()), client.submit(spec_dict())
    reach_epoch(running, 2)
    victim = cluster.containers(service)[0]
    before = cluster.starts(victim)
    cluster.kill(victim)
    wait_until(lambda: cluster.starts(victim) > before, f"Docker to start {victim} again")
    finish(running)
    attempts = assert_right(cluster, client, running, undisturbed)
    assert attempts == 1 or service not in WITHOUT_WORKERS
    assert finish(waiting) is State.SUCCEEDED
    cluster.wait_until_well(cluster.containers(service))


def test_a_worker_that_is_stopped_in_good_order_first_writes_a_checkpoint(
    cluster: ComposeCluster, client: Client, undisturbed: ExperimentView
):
    experiment = client.submit(some_epochs(checkpoint={"every_steps": 10_000}))
    reach_epoch(experiment, 2)
    container = cluster.containers("ray-worker")[1]
    docker("stop", "--time=150", container)
    docker("start", container)
    finish(experiment)
    assert assert_right(cluster, client, experiment, undisturbed) >= 2
    resumed = [attempt.resumed_from_step for attempt in client.attempts(experiment.id)]
    assert resumed[-1] is not None, "nothing was kept of the first attempt"
    cluster.wait_until_well([container])


def test_a_worker_is_cut_off_and_comes_back(cluster: ComposeCluster, client: Client, undisturbed: ExperimentView):
    experiment = client.submit(some_epochs())
    reach_epoch(experiment, 2)
    victim, network = cluster.containers("ray-worker")[0], f"{cluster.name}_cluster"
    docker("network", "disconnect", network, victim)
    wait_until(lambda: client.attempts(experiment.id)[0].ended_at is not None, "the loss to be seen", seconds=180)
    assert is_there(experiment) not in (State.SUCCEEDED, State.FAILED)
    docker("network", "connect", network, victim)
    finish(experiment)  # on two workers, so the one that was away has joined again
    assert assert_right(cluster, client, experiment, undisturbed) >= 2
    cluster.wait_until_well([victim])
