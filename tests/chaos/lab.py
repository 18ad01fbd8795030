"""A whole stack to do harm to, and what must be true of every experiment afterwards."""

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from service.client.client import Client
from service.client.experiment import ExperimentHandle
from service.domain.states import TERMINAL, State
from service.errors import ServiceError
from service.stack.processes import members
from service.stack.record import StackRecord, load
from service.stack.settings import StackSettings
from service.stack.stack import Stack
from tests.support.ports import free_port
from tests.support.postgresql import PostgresServer, postgres_server, programs
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until
from workers.protocol.fence import holds
from workers.protocol.storage import ExperimentFolder

POSTGRESQL = None if os.environ.get("CBAM_CHAOS_DATABASE") == "sqlite" else programs()
PARTS = ("api", "dispatcher", "worker", "raylet", "head", "mlflow", *(("postgresql",) if POSTGRESQL else ()))
PHASES = ("QUEUED", "STARTING", "RUNNING", "CHECKPOINT", "PAUSING", "CANCELLING")
EPOCHS = 15  # so many that the harm still meets them
WAITS = {  # shorter than by default, and still longer than what a busy machine makes of a moment
    "CBAM_LINGER_SECONDS": "2",
    "CBAM_STANDBY_PAUSE_SECONDS": "4",
    "CBAM_LEASE_SECONDS": "5",
}
PATIENCE_SECONDS = 240.0
RUN_STATUS = {State.SUCCEEDED: "FINISHED", State.FAILED: "FAILED", State.CANCELLED: "KILLED"}


def let_pass(seconds: float) -> None:
    """For harm that lasts, or comes at a moment of chance: here the time itself is what is waited for."""
    threading.Event().wait(seconds)


@dataclass
class ChaosLab:
    """One stack with its own home, ports and processes, and its own PostgreSQL where it has one."""

    stack: Stack
    client: Client
    database: PostgresServer | None

    @property
    def record(self) -> StackRecord:
        """What runs at present."""
        record = load(self.stack.settings.home)
        assert record is not None
        return record

    def submit(self, **changes: Any) -> ExperimentHandle:
        """Some seconds of training, with a checkpoint after each of some epochs."""
        train = {"epochs": EPOCHS, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
        return self.client.submit(spec_dict(**{"train": train} | changes))

    def submit_into(self, phase: str) -> ExperimentHandle:
        """An experiment that is in the phase, and is held there where it would pass at once."""
        if phase == "QUEUED":
            self.signal("dispatcher", signal.SIGSTOP)  # it cannot start anything before the harm is done
        elif phase == "STARTING":
            self.signal("worker", signal.SIGSTOP)  # one that lingers would begin at once
        experiment = self.submit(**({"checkpoint": {"every_steps": 1}} if phase == "CHECKPOINT" else {}))
        self.reach(experiment, phase)
        return experiment

    def processes(self, part: str) -> list[psutil.Process]:
        """The living processes of one part; a worker is a process that trains, or lingers to train."""
        if part == "postgresql":
            return self.database.processes() if self.database else []
        if part in ("api", "dispatcher", "mlflow"):
            return members(self.record.processes[part], self.record.stack_id)
        word = {"worker": "TrainWorker", "raylet": "raylet/raylet", "head": "gcs_server"}[part]
        found = []
        for process in members(self.record.processes["ray"], self.record.stack_id):
            with suppress(psutil.Error):
                if word in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def signal(self, part: str, signum: signal.Signals) -> int:
        """Send a signal to all processes of a part; gives their number."""
        processes = self.processes(part)
        if part == "postgresql" and processes and signum is signal.SIGKILL:
            self.database.kill()
            return len(processes)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signum)
        return len(processes)

    def is_there(self, experiment: ExperimentHandle) -> State:
        """Its state, also while the API is away or slow."""
        with suppress(ServiceError):
            experiment.refresh()
        return experiment.state

    def reach(self, experiment: ExperimentHandle, phase: str) -> None:
        """Wait for the phase, and hold the experiment in it by stopping its workers, where it would pass at once."""
        if phase == "QUEUED":
            return
        states = set(State) - {State.QUEUED}
        wait_until(lambda: self.is_there(experiment) in states, f"{experiment.id} to start", seconds=PATIENCE_SECONDS)
        if phase == "STARTING":
            return
        wait_until(
            lambda: self.is_there(experiment) in TERMINAL or experiment.view.progress.epoch >= 1,
            f"the first epoch of {experiment.id}",
            seconds=PATIENCE_SECONDS,
        )
        if phase == "CHECKPOINT":
            wait_until(lambda: self.freeze_in_a_write(experiment), "a checkpoint that is being written")
        elif phase in ("PAUSING", "CANCELLING"):
            self.signal("worker", signal.SIGSTOP)  # it cannot obey before the harm is done
            self.client.pause(experiment.id) if phase == "PAUSING" else self.client.cancel(experiment.id)
            wait_until(lambda: self.is_there(experiment) in {State(phase), *TERMINAL}, phase)

    def freeze_in_a_write(self, experiment: ExperimentHandle) -> bool:
        """Stop the workers; whether that was between the first byte of a checkpoint and its manifest."""
        self.signal("worker", signal.SIGSTOP)
        folder = ExperimentFolder(self.stack.settings.storage_root, experiment.id).checkpoints
        if any(not (one / "manifest.json").exists() for one in folder.glob("step-*")):
            return True
        if self.is_there(experiment) in TERMINAL:
            return True
        self.signal("worker", signal.SIGCONT)
        return False

    def recover(self) -> None:
        """What the operator does: continue what was stopped, and start what is gone."""
        for part in PARTS:
            self.signal(part, signal.SIGCONT)
        if self.database and not self.database.processes():
            self.database.start()
        self.stack.up()

    def finish(self, experiment: ExperimentHandle) -> State:
        """Resume it where it was paused, and wait for its end."""

        def ended() -> bool:
            state = self.is_there(experiment)
            if state is State.PAUSED:
                with suppress(ServiceError):
                    self.client.resume(experiment.id)
            return state in TERMINAL

        wait_until(ended, f"{experiment.id} to end", seconds=PATIENCE_SECONDS)
        return experiment.state

    def assert_sound(self, experiment: ExperimentHandle, *, epochs: int = EPOCHS) -> None:
        """What must be true of an experiment that has ended, whatever was done to it."""
        attempts = self.client.attempts(experiment.id)
        assert [attempt.number for attempt in attempts] == list(range(1, len(attempts) + 1))
        assert all(attempt.ended_at is not None for attempt in attempts)
        self._assert_one_at_a_time(experiment.id, attempts)
        self._assert_little_was_wasted(experiment, attempts, epochs)
        wanted = RUN_STATUS[experiment.state]
        has_run = experiment.refresh().view.mlflow_run_id is not None
        assert has_run or experiment.state is not State.SUCCEEDED, "it is nowhere in MLflow"
        if has_run:
            wait_until(lambda: self._run_status(experiment) == wanted, f"MLflow to say {wanted}")
            self._assert_curves(experiment, epochs)
        left = self.stack.settings.standby_workers
        wait_until(lambda: len(self.processes("worker")) <= left, "the last worker to go")

    def assert_nothing_is_left(self) -> None:
        """No worker trains, and all of the cluster can be had: a gang of its whole size runs."""
        cores = psutil.cpu_count() or 1
        whole = self.submit(
            resources={"workers": 2, "cpus_per_worker": max(1, cores // 2)},
            train={"epochs": 1, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}},
        )
        assert self.finish(whole) is State.SUCCEEDED

    def _assert_one_at_a_time(self, experiment_id: str, attempts: Any) -> None:
        """By the rows, and by the fence that the workers take on storage."""
        for before, after in itertools.pairwise(attempts):
            assert before.ended_at <= after.started_at
        held = holds(ExperimentFolder(self.stack.settings.storage_root, experiment_id))
        for one, other in itertools.pairwise(held):
            assert one.seen_at <= other.taken_at, f"attempts {one.attempt} and {other.attempt} were alive at once"
        trained = {attempt.number for attempt in attempts if attempt.last_step}
        assert trained <= {one.attempt for one in held}, "an attempt trained without the fence"

    def _assert_little_was_wasted(self, experiment: ExperimentHandle, attempts: Any, epochs: int) -> None:
        """An attempt that was itself killed may not have told where it began; the one that ended well has."""
        interval = max(1, experiment.view.progress.total_steps // epochs)
        ended_well = attempts[-1] if experiment.state is State.SUCCEEDED else None
        for before, after in itertools.pairwise(attempts):
            if after is ended_well or after.resumed_from_step is not None:
                began = after.resumed_from_step or 0
                assert began >= before.last_step - interval, "more than one interval was done again"

    def _run_status(self, experiment: ExperimentHandle) -> str:
        return str(self._mlflow().get_run(experiment.view.mlflow_run_id).info.status)

    def _assert_curves(self, experiment: ExperimentHandle, epochs: int) -> None:
        """Every value is there once, in order."""
        for key in ("val/top1", "train/loss"):
            points = self._mlflow().get_metric_history(experiment.view.mlflow_run_id, key)
            steps = [point.step for point in points]
            assert steps == sorted(set(steps)), f"{key} was told twice"
            if experiment.state is State.SUCCEEDED:
                total = experiment.view.progress.total_steps
                every = total // epochs if key == "val/top1" else 1
                assert steps == list(range(every, total + 1, every)), f"{key} was lost"

    def _mlflow(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.record.mlflow_url)


@contextmanager
def chaos_lab(home: Path, *, standby_workers: int = 0) -> Iterator[ChaosLab]:
    """A running stack, and nothing of it afterwards."""
    settings: dict[str, Any] = {"port": free_port(), "mlflow_port": free_port(), "ray_port": free_port()}
    settings["standby_workers"] = standby_workers
    with ExitStack() as exits:
        patch = exits.enter_context(pytest.MonkeyPatch.context())
        for name, value in WAITS.items():
            patch.setenv(name, value)
        database = exits.enter_context(postgres_server(POSTGRESQL)) if POSTGRESQL else None
        if database:
            database.execute("CREATE DATABASE cbam")
            settings["database_url"] = database.url("cbam")
        stack = Stack(StackSettings(home=home, **settings))
        exits.callback(stack.down)
        lab = ChaosLab(stack, exits.enter_context(Client(stack.up().url)), database)
        yield lab
        for part in PARTS:
            lab.signal(part, signal.SIGCONT)
