"""Track a run in the journal, and send it to MLflow from a background thread."""

import logging
import os
import threading
import time
from collections.abc import Mapping

from cbam_core.errors import CheckpointError, Superseded
from workers.protocol.assignment import Assignment
from workers.protocol.outcome import Outcome
from workers.tracking.journal_tracker import JournalTracker
from workers.tracking.mlflow_client import one_line
from workers.tracking.mlflow_sender import Sender
from workers.tracking.provenance import system_metrics

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0


SYSTEM_SECONDS = 10.0


CLOSE_SECONDS = float(os.environ.get("CBAM_TRACKING_CLOSE_SECONDS", "60"))


_STEPS_BEFORE_FIRST_FLUSH = 3


_STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


class MlflowTracker(JournalTracker):
    """The journal, and one background thread that sends it to MLflow.

    The training thread never waits for MLflow, and MLflow's import (seconds) happens beside the first steps. An
    experiment has one run, whose id storage keeps: a later attempt continues it.
    """

    def __init__(self, assignment: Assignment, uri: str) -> None:
        super().__init__(assignment)
        self._sender = Sender(
            self._folder, uri, run_name=self._spec.name, project=self._spec.project, journal=self._journal
        )
        self._logged = self._step = 0
        self._away = self._told = False
        self._next_sample = 0.0
        self._enough_steps, self._closing, self._given_up = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._send_for_ever, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:  # type: ignore[override]
        """The MLflow run, once it is known."""
        return self._sender.run_id

    @property
    def project_id(self) -> str | None:  # type: ignore[override]
        """MLflow's experiment that the run is in, once it is known."""
        return self._sender.project_id or None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Values measured at `step`. Raises Superseded where another attempt writes the journal."""
        super().log(step, metrics)
        self._step = step
        self._logged += 1
        if self._logged == _STEPS_BEFORE_FIRST_FLUSH:
            self._enough_steps.set()

    def close(self, outcome: Outcome) -> bool:
        """Hand over artifacts, model and status; after CLOSE_SECONDS the journal keeps what MLflow has not taken."""
        ends = False
        try:
            self._fence.check()
            ends = self._append_ending(outcome)
        except (Superseded, CheckpointError):
            self._given_up.set()  # what this attempt has not told yet is another one's to tell
        except OSError as error:
            logger.warning("MLflow is not told by this worker how the attempt ended: %s", error)
        self._closing.set()
        self._enough_steps.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._given_up.set()
            logger.warning("MLflow has not taken everything; the rest waits in %s", self._folder.journal)
        super().close(outcome)
        return ends and self._told and not (self._given_up.is_set() or self._sender.refused_status)

    def _append_ending(self, outcome: Outcome) -> bool:
        """Write down what is to be told of the end; whether the run ends with it."""
        if outcome.outcome == "succeeded":
            for path in (self._folder.weights, self._folder.torch_program, self._folder.onnx_program):
                if path.is_file():
                    self._journal.append({"artifact": str(path), "to": "weights"})
            if self._folder.predictions.is_file():
                self._journal.append({"artifact": str(self._folder.predictions), "to": "predictions"})
            for matrix in (self._folder.confusion_matrix, self._folder.test_confusion_matrix):
                if matrix.is_file():
                    self._journal.append({"confusion": str(matrix)})
            self._journal.append({"model": str(self._folder.weights)})
        status = _STATUS.get(outcome.outcome)
        if status and outcome.reason != "WORKER_DIED":  # a lost worker is replaced: the run goes on
            self._journal.append({"status": status})
            return True
        return False

    def _send_for_ever(self) -> None:
        self._enough_steps.wait()
        while not self._given_up.is_set():
            closing = self._closing.is_set()
            if self._try_to_send() and closing:
                self._told = True
                return
            (self._given_up if closing else self._closing).wait(FLUSH_SECONDS)

    def _try_to_send(self) -> bool:
        try:
            self._fence.check()
            self._sample_system()
            self._sender.send(self._may_send)
        except Superseded:
            self._given_up.set()
            return False
        except Exception as error:  # whatever it is: tracking never costs the training
            if not self._away:
                logger.warning("MLflow is away, what is for it waits in the journal: %s", one_line(error))
            self._away = True
            return False
        self._away = False
        return True

    def _may_send(self) -> bool:
        self._fence.check()
        return not self._given_up.is_set()

    def _sample_system(self) -> None:
        now = time.monotonic()
        if now >= self._next_sample and not self._closing.is_set():
            self._journal.append_metrics(self._step, system_metrics(), time.time_ns() // 1_000_000)
            self._next_sample = now + SYSTEM_SECONDS
