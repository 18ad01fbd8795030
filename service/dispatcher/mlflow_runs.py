"""Says in MLflow how an experiment ended, and what else its workers could not tell. Tried until MLflow has heard it."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from service.database.models.experiments import Experiment
from service.dispatcher.store import DispatcherStore
from service.domain.states import State
from workers.protocol.addresses import without_proxy_to_loopback
from workers.protocol.fence import newest_attempt
from workers.protocol.storage import ExperimentFolder
from workers.tracking.replay import is_waiting
from workers.tracking.run_identity import find_old_run, read_run

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

RUN_STATUS = {State.SUCCEEDED: "FINISHED", State.FAILED: "FAILED", State.CANCELLED: "KILLED"}
RETRY_SECONDS = 5.0  # doubles with each failure of one run
LONGEST_PAUSE_SECONDS = 60.0
REPLAY_SECONDS = 1800.0


@dataclass(frozen=True)
class FinalizeResult:
    """What came of telling MLflow: the rows it has heard of with their run, if they have one, and those it has not."""

    closed: list[tuple[Experiment, str | None, str | None]] = field(default_factory=list)  # and where that is
    failed: list[str] = field(default_factory=list)


class RunFinalizer:
    """Sets terminal statuses from a thread of its own, so that a slow or absent MLflow never delays a tick.

    A run that cannot be closed waits longer and longer for its next turn, and holds up no other.
    """

    def __init__(
        self, dispatcher_store: DispatcherStore, *, storage: Path, tracking_uri: str | None, clock: Callable[[], float]
    ) -> None:
        self.store = dispatcher_store
        self.storage = storage
        self.tracking_uri = tracking_uri
        self.clock = clock
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="close-runs")
        self.under_way: Future[FinalizeResult] | None = None
        self.not_before = 0.0
        self.pauses: dict[str, tuple[float, float]] = {}  # of what failed: seconds, and when they are over

    def tick(self) -> None:
        """Take what the thread has done, and give it what is left. Returns at once."""
        if self.under_way is not None:
            if not self.under_way.done():
                return
            self._take(self.under_way)
            self.under_way = None
        now = self.clock()
        if now < self.not_before:
            return
        if rows := self.store.open_runs(besides=[name for name, (_, until) in self.pauses.items() if now < until]):
            self.under_way = self.pool.submit(self._close_all, rows)

    def close(self) -> None:
        """Stop after the run in hand."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _take(self, done: Future[FinalizeResult]) -> None:
        error = done.exception()
        if error is not None:
            log.warning("MLflow cannot be told how runs ended, trying again: %s", error)
            self.not_before = self.clock() + RETRY_SECONDS
            return
        for row, run_id, run_in in done.result().closed:
            self.pauses.pop(row.id, None)
            self.store.close_run(row, run_id, run_in)
        for experiment_id in done.result().failed:
            before, _ = self.pauses.get(experiment_id, (0.0, 0.0))
            pause = min(LONGEST_PAUSE_SECONDS, 2 * before or RETRY_SECONDS)
            self.pauses[experiment_id] = (pause, self.clock() + pause)

    def _close_all(self, rows: list[Experiment]) -> FinalizeResult:
        """Tell MLflow of these, one by one. Raises what MLflow raises while it is away."""
        if self.tracking_uri is None:
            return FinalizeResult(closed=[(row, row.mlflow_run_id, None) for row in rows])
        os.environ.update(without_proxy_to_loopback(os.environ))
        from mlflow import MlflowClient

        client, said = MlflowClient(self.tracking_uri), FinalizeResult()
        client.search_experiments(max_results=1)  # away, it would let every run wait for itself
        self._replay(self.tracking_uri, rows)
        for row in rows:
            try:
                folder = self._folder(row)
                run_id, run_in = _end_run(client, row, folder, goes_on=newest_attempt(folder) > row.attempt)
                if is_waiting(folder):
                    raise RuntimeError("its journal could not be sent")
                said.closed.append((row, run_id, run_in))
            except Exception as error:  # whatever is wrong with one run is no other's
                log.warning(
                    "MLflow has not heard all of this, trying again: %s", error, extra={"experiment_id": row.id}
                )
                said.failed.append(row.id)
                if _is_in_trouble(error):
                    break  # else the others would each find that out, for minutes
        return said

    def _replay(self, uri: str, rows: list[Experiment]) -> None:
        """Hand over what could not be told while MLflow was away. What fails is seen by what still waits then."""
        waiting = [row.id for row in rows if self._has_more(row)]
        if not waiting:
            return
        command = [sys.executable, "-m", "workers.tracking.replay", str(self.storage), *waiting]
        try:
            subprocess.run(command, env=os.environ | {"MLFLOW_TRACKING_URI": uri}, check=False, timeout=REPLAY_SECONDS)
        except subprocess.TimeoutExpired as error:
            log.warning("%s", error)

    def _has_more(self, row: Experiment) -> bool:
        try:
            return is_waiting(self._folder(row))
        except (OSError, ValueError):  # said when the row has its turn
            return False

    def _folder(self, row: Experiment) -> ExperimentFolder:
        return ExperimentFolder(self.storage, row.id)


def _end_run(
    client: "MlflowClient", row: Experiment, folder: ExperimentFolder, *, goes_on: bool
) -> tuple[str | None, str | None]:
    """Set the status of the row's run, unless it `goes_on` with an attempt that began since the row was read.

    Returns the run and MLflow's experiment that it is in, as far as these are known: an experiment may never have had
    one. A run that was deleted in MLflow needs no status.
    """
    from mlflow.exceptions import MlflowException

    known = read_run(folder)
    run_id = known.run_id if known and known.run_id else row.mlflow_run_id
    if known is None and run_id is None and (found := find_old_run(client, row.project, row.id)):
        run_id = found.info.run_id
    if run_id is None or goes_on:
        return run_id, None
    try:
        info = client.get_run(run_id).info
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return run_id, None
    status = RUN_STATUS[State(row.state)]
    if info.lifecycle_stage == "active" and info.status != status:
        client.set_terminated(run_id, status)
    return run_id, str(info.experiment_id)


def _is_in_trouble(error: Exception) -> bool:
    """Whether MLflow did not answer, or could not; else it refused what it was asked for."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, MlflowException) and error.error_code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
