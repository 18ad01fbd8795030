"""The promises, tried by doing the harm they speak of: on the whole stack, as `cbam up` starts it."""

from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from service.client.client import Client
from service.client.experiment import ExperimentHandle
from service.domain.states import Reason, State
from service.stack.processes import members
from service.stack.record import StackRecord, load
from service.stack.settings import StackSettings
from service.stack.stack import Stack
from tests.support.ports import free_port
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(900)]
EPOCHS = 12
PATIENCE_SECONDS = 240.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("stack")
    ports = {"port": free_port(), "mlflow_port": free_port(), "ray_port": free_port()}
    stack = Stack(StackSettings(home=home, standby_workers=0, data_roots=(home / "data",), **ports))
    try:
        stack.up()
        yield stack
    finally:
        stack.down()


@pytest.fixture
def record(stack: Stack) -> StackRecord:
    record = load(stack.settings.home)
    assert record is not None
    return record


@pytest.fixture
def client(record: StackRecord) -> Iterator[Client]:
    with Client(record.url) as client:
        yield client


def submit(client: Client, **changes: object) -> ExperimentHandle:
    """Some seconds of training, with a checkpoint after each of many epochs."""
    train = {"epochs": EPOCHS, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    return client.submit(spec_dict(train=train, **changes))


def wait_for(experiment: ExperimentHandle, *states: State) -> None:
    wait_until(
        lambda: experiment.refresh().state in states, f"{experiment.id} to be {states}", seconds=PATIENCE_SECONDS
    )


def wait_for_epoch(experiment: ExperimentHandle, epoch: int) -> None:
    wait_until(lambda: experiment.refresh().view.progress.epoch >= epoch, f"epoch {epoch}", seconds=PATIENCE_SECONDS)


def processes(record: StackRecord, part: str) -> list[psutil.Process]:
    return members(record.processes[part], record.stack_id)


def workers(record: StackRecord) -> list[psutil.Process]:
    found = []
    for process in processes(record, "ray"):
        with suppress(psutil.Error):  # it has ended since it was listed
            if "TrainWorker" in " ".join(process.cmdline()):
                found.append(process)
    return found


def worker(record: StackRecord) -> psutil.Process:
    return workers(record)[0]


def curve(record: StackRecord, experiment: ExperimentHandle, key: str) -> list[int]:
    """The steps at which MLflow has a value, in the order of the curve."""
    from mlflow import MlflowClient

    run_id = experiment.refresh().view.mlflow_run_id
    assert run_id is not None
    return [point.step for point in MlflowClient(record.mlflow_url).get_metric_history(run_id, key)]


def status_of_run(record: StackRecord, experiment: ExperimentHandle) -> str:
    from mlflow import MlflowClient

    run_id = experiment.refresh().view.mlflow_run_id
    return "" if run_id is None else str(MlflowClient(record.mlflow_url).get_run(run_id).info.status)


def test_killing_the_api_and_the_dispatcher_does_not_touch_what_runs(stack: Stack, client: Client, record: StackRecord):
    experiment = submit(client)
    wait_for_epoch(experiment, 2)
    pid = worker(record).pid
    for part in ("api", "dispatcher"):
        for process in processes(record, part):
            process.kill()
    assert psutil.pid_exists(pid)
    stack.up()
    wait_for(experiment, State.SUCCEEDED)
    (attempt,) = client.attempts(experiment.id)
    assert attempt.number == 1
    assert [event.to_state for event in client.events(experiment.id)] == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    steps = curve(record, experiment, "val/top1")
    assert len(steps) == EPOCHS
    assert steps == sorted(set(steps)), "no value is lost or told twice"


def test_a_killed_worker_goes_on_from_its_checkpoint_at_nobodys_cost(client: Client, record: StackRecord):
    experiment = submit(client)
    wait_for_epoch(experiment, 3)
    worker(record).kill()
    wait_for(experiment, State.SUCCEEDED)
    first, second = client.attempts(experiment.id)
    assert (first.reason, second.reason) == (Reason.WORKER_DIED, None)
    assert second.resumed_from_step is not None
    steps_per_epoch = experiment.view.progress.total_steps // EPOCHS
    assert second.resumed_from_step >= 2 * steps_per_epoch, "at most one checkpoint interval is done again"
    steps = curve(record, experiment, "val/top1")
    assert steps == sorted(set(steps))
    assert len(steps) == EPOCHS
    wait_until(lambda: status_of_run(record, experiment) == "FINISHED", "MLflow to know the end")


def test_a_cancel_frees_what_it_held(client: Client, record: StackRecord):
    experiment = submit(client, resources={"workers": 2})
    wait_for(experiment, State.RUNNING)
    experiment.cancel()
    wait_for(experiment, State.CANCELLED)
    wait_until(lambda: not workers(record), "the workers to be gone")
    wait_until(lambda: status_of_run(record, experiment) == "KILLED", "MLflow to know the end")


def test_a_pause_and_a_resume_go_on_where_it_stopped(client: Client, record: StackRecord):
    experiment = submit(client)
    wait_for_epoch(experiment, 1)
    client.pause(experiment.id)
    wait_for(experiment, State.PAUSED)
    stopped_at = experiment.view.progress.step
    client.resume(experiment.id)
    wait_for(experiment, State.SUCCEEDED)
    assert client.attempts(experiment.id)[1].resumed_from_step == stopped_at


def test_a_higher_priority_displaces_what_may_be_displaced_and_that_goes_on_where_it_was(client: Client):
    whole = {"workers": 2, "cpus_per_worker": max(1, (psutil.cpu_count() or 1) // 2)}
    weak = submit(client, preemptible=True, resources=whole)
    wait_for_epoch(weak, 1)
    strong = client.submit(spec_dict(name="strong", priority=5, resources=whole))
    wait_for(strong, State.SUCCEEDED)
    wait_for(weak, State.SUCCEEDED)
    first, second = client.attempts(weak.id)
    assert (first.reason, second.reason) == (Reason.PREEMPTED, None)
    assert second.resumed_from_step == first.last_step > 0, "nothing was done again"
    assert first.ended_at <= client.attempts(strong.id)[0].started_at <= second.started_at


def test_a_dataset_that_is_not_there_fails_with_its_name_and_the_log(client: Client, stack: Stack):
    root = stack.settings.data_roots[0]
    root.mkdir(exist_ok=True)
    experiment = client.submit(spec_dict(data={"dataset": "cifar10", "root": str(root)}))
    wait_for(experiment, State.FAILED)
    assert experiment.view.reason is Reason.DATA_ERROR
    assert "cifar-10-batches-py" in experiment.view.message
    assert "Last log lines" in experiment.view.message


def test_a_loss_that_is_not_finite_fails_with_its_name(client: Client):
    optimizer = {"type": "sgd", "lr": 1e30}
    experiment = client.submit(spec_dict(train={"epochs": 2, "global_batch_size": 128, "optimizer": optimizer}))
    wait_for(experiment, State.FAILED)
    assert experiment.view.reason is Reason.LOSS_NOT_FINITE
    assert "step" in experiment.view.message
