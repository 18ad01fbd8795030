"""Says in MLflow how each experiment ended, and what its workers could not tell. Tried until MLflow has heard it."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from service.ledger import Ledger
from service.models import Experiment
from service.states import State
from workers.fence import newest_attempt
from workers.replay import is_waiting
from workers.storage import ExperimentFolder
from workers.tracking import find_run

log = logging.getLogger(__name__)

RUN_STATUS = {State.SUCCEEDED: "FINISHED", State.FAILED: "FAILED", State.CANCELLED: "KILLED"}
RETRY_SECONDS = 5.0
REPLAY_SECONDS = 1800.0


class RunCloser:
    """Sets terminal statuses from a thread of its own, so that a slow or absent MLflow never delays a tick."""

    def __init__(self, ledger: Ledger, *, storage: Path, tracking_uri: str | None, clock: Callable[[], float]) -> None:
        self.ledger = ledger
        self.storage = storage
        self.tracking_uri = tracking_uri
        self.clock = clock
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="close-runs")
        self.under_way: Future[dict[str, str | None]] | None = None
        self.not_before = 0.0

    def tick(self) -> None:
        """Take what the thread has done, and give it what is left. Returns at once."""
        if self.under_way is not None:
            if not self.under_way.done():
                return
            self._take(self.under_way)
            self.under_way = None
        if self.clock() < self.not_before:
            return
        if rows := self.ledger.open_runs():
            self.under_way = self.pool.submit(self._close_all, rows)

    def close(self) -> None:
        """Stop after the run in hand."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _take(self, done: Future[dict[str, str | None]]) -> None:
        error = done.exception()
        if error is not None:
            log.warning("MLflow cannot be told how runs ended, trying again: %s", error)
            self.not_before = self.clock() + RETRY_SECONDS
            return
        for experiment_id, run_id in done.result().items():
            self.ledger.close_run(experiment_id, run_id)

    def _close_all(self, rows: list[Experiment]) -> dict[str, str | None]:
        """The runs that now say how they ended, by experiment; None for an experiment that never had one."""
        if self.tracking_uri is None:
            return {row.id: row.mlflow_run_id for row in rows}
        from mlflow import MlflowClient

        self._replay(self.tracking_uri, rows)
        client = MlflowClient(self.tracking_uri)
        closed: dict[str, str | None] = {}
        for row in rows:
            run_id = row.mlflow_run_id or find_run(client, row.project, row.id)
            status = RUN_STATUS[State(row.state)]
            goes_on = newest_attempt(self._folder(row)) > row.attempt  # retried since it was read
            if run_id is not None and not goes_on and client.get_run(run_id).info.status != status:
                client.set_terminated(run_id, status)
            closed[row.id] = run_id
        return closed

    def _replay(self, uri: str, rows: list[Experiment]) -> None:
        """Hand over what could not be told while MLflow was away."""
        waiting = [row.id for row in rows if is_waiting(self._folder(row))]
        if waiting:
            command = [sys.executable, "-m", "workers.replay", str(self.storage), *waiting]
            environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
            subprocess.run(command, env=environment, check=True, timeout=REPLAY_SECONDS)

    def _folder(self, row: Experiment) -> ExperimentFolder:
        return ExperimentFolder(self.storage, row.id)
