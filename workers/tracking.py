"""Where metrics go: nowhere (Tracker), or to MLflow (MlflowTracker), without ever holding up the training."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from cbam_core.spec import read_spec
from workers.assignment import Assignment
from workers.figures import confusion_matrix_png
from workers.journal import Journal
from workers.outcome import Outcome
from workers.storage import ExperimentFolder, write_atomically

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger(__name__)
EXPERIMENT_TAG = "cbam.experiment_id"
FLUSH_SECONDS = 2.0
SYSTEM_SECONDS = 10.0
CLOSE_SECONDS = float(os.environ.get("CBAM_TRACKING_CLOSE_SECONDS", "60"))
_BATCH_VALUES = 1000  # the most that MLflow takes in one log_batch
_BATCH_PARAMS = 100
_STEPS_BEFORE_FIRST_FLUSH = 3
_PACKAGES = ("cbam-lab", "torch", "torchvision", "timm", "ray", "mlflow")
_STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}  # MLflow would refuse it again: no use in sending it again
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the journal does the retrying
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Tracker:
    """Tracks nothing: what every rank but the first uses, and every rank where there is no MLflow."""

    run_id: str | None = None

    def tag(self, tags: Mapping[str, str]) -> None:
        """Facts about the run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Values measured at `step`."""

    def close(self, outcome: Outcome) -> None:
        """The attempt ended like this; hand over what is left, in bounded time."""


class MlflowTracker(Tracker):
    """Writes all to the experiment's journal, at once; one background thread sends the journal to MLflow.

    The training thread never waits for MLflow, and MLflow's import (seconds) happens beside the first steps. An
    experiment has one run, found by its tag: a later attempt continues it.
    """

    def __init__(self, assignment: Assignment, uri: str) -> None:
        self._spec = assignment.spec
        self._folder = assignment.folder
        self._sender = Sender(assignment.folder, uri, run_name=self._spec.name, project=self._spec.project)
        self._journal = self._sender.journal
        self._logged = self._step = 0
        self._away = False
        self._next_sample = 0.0
        self._enough_steps, self._closing, self._given_up = threading.Event(), threading.Event(), threading.Event()
        if self._journal.is_new:
            self._journal.append({"params": flatten(self._spec.model_dump(mode="json"))})
            self._journal.append({"artifact": str(self._folder.spec)})
        self.tag(self._spec.tags | _provenance() | {"cbam.attempt": str(assignment.attempt)})
        self._thread = threading.Thread(target=self._send_for_ever, name="mlflow", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:  # type: ignore[override]
        """The MLflow run, once it is known."""
        return self._sender.run_id

    def tag(self, tags: Mapping[str, str]) -> None:
        """Facts about the run."""
        self._journal.append({"tags": dict(tags)})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Values measured at `step`."""
        self._journal.append_metrics(step, metrics, _now())
        self._step = step
        self._logged += 1
        if self._logged == _STEPS_BEFORE_FIRST_FLUSH:
            self._enough_steps.set()

    def close(self, outcome: Outcome) -> None:
        """Hand over artifacts, model and status; after CLOSE_SECONDS the journal keeps what MLflow has not taken."""
        if outcome.outcome == "succeeded":
            for path in (self._folder.weights, self._folder.torch_program, self._folder.onnx_program):
                if path.is_file():
                    self._journal.append({"artifact": str(path), "to": "weights"})
            self._journal.append({"confusion": str(self._folder.confusion_matrix)})
            self._journal.append({"model": str(self._folder.weights)})
        status = _STATUS.get(outcome.outcome)
        if status and outcome.reason != "WORKER_DIED":  # a lost worker is replaced: the run goes on
            self._journal.append({"status": status})
        self._closing.set()
        self._enough_steps.set()
        self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive():
            self._given_up.set()
            logger.warning("MLflow has not taken everything; the rest waits in %s", self._folder.journal)
        self._journal.close()

    def _send_for_ever(self) -> None:
        self._enough_steps.wait()
        while not self._given_up.is_set():
            closing = self._closing.is_set()
            self._sample_system()
            if self._try_to_send() and closing:
                return
            (self._given_up if closing else self._closing).wait(FLUSH_SECONDS)

    def _try_to_send(self) -> bool:
        try:
            self._sender.send(self._given_up)
        except Exception as error:  # whatever it is: tracking never costs the training
            if not self._away:
                logger.warning("MLflow is away, what is for it waits in the journal: %s", _one_line(error))
            self._away = True
            return False
        self._away = False
        return True

    def _sample_system(self) -> None:
        now = time.monotonic()
        if now >= self._next_sample and not self._closing.is_set():
            self._journal.append_metrics(self._step, _system_metrics(), _now())
            self._next_sample = now + SYSTEM_SECONDS


class Sender:
    """Sends a journal to MLflow, from where the last sender stopped, in order. Made anew after a crash, it goes on."""

    def __init__(self, folder: ExperimentFolder, uri: str, *, run_name: str, project: str) -> None:
        self.journal = Journal(folder.journal)
        self.run_id: str | None = None
        self._experiment_id = folder.experiment_id
        self._uri, self._run_name, self._project = uri, run_name, project
        self._client: MlflowClient | None = None

    def send(self, given_up: threading.Event) -> None:
        """Send what the journal holds, until it is empty or given up. Raises what MLflow raises while it is away."""
        while (pending := self.journal.pending()) and not given_up.is_set():
            for call, offset in _calls(pending):
                if given_up.is_set():
                    return
                self._send_one(self._connect(), call)
                self.journal.mark_sent(offset)

    def _connect(self) -> "MlflowClient":
        if self._client is None:
            for name, value in _ENVIRONMENT.items():
                os.environ.setdefault(name, value)
            import mlflow

            logging.getLogger("mlflow.pytorch").setLevel(logging.ERROR)  # it warns of pickle at every model
            mlflow.set_tracking_uri(self._uri)
            self._client = mlflow.MlflowClient(self._uri)
        if self.run_id is None:
            self.run_id = self._ensure_run(self._client)
        return self._client

    def _ensure_run(self, client: "MlflowClient") -> str:
        experiment = client.get_experiment_by_name(self._project)
        project_id = experiment.experiment_id if experiment else client.create_experiment(self._project)
        if experiment and experiment.lifecycle_stage == "deleted":
            client.restore_experiment(project_id)
        runs = client.search_runs([project_id], f"tags.`{EXPERIMENT_TAG}` = '{self._experiment_id}'", max_results=1)
        if runs:
            client.update_run(runs[0].info.run_id, status="RUNNING")
            return str(runs[0].info.run_id)
        tags = {EXPERIMENT_TAG: self._experiment_id}
        return str(client.create_run(project_id, tags=tags, run_name=self._run_name).info.run_id)

    def _send_one(self, client: "MlflowClient", call: Mapping[str, Any]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._dispatch(client, call)
        except MlflowException as error:
            if error.error_code not in _REFUSED:
                raise
            logger.warning("MLflow refuses %s: %s", ", ".join(call), _one_line(error))

    def _dispatch(self, client: "MlflowClient", call: Mapping[str, Any]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        assert self.run_id is not None
        match call:
            case {"values": values}:
                client.log_batch(self.run_id, metrics=[Metric(*value) for value in values])
            case {"params": params}:
                pairs = [Param(name, value) for name, value in params.items()]
                for start in range(0, len(pairs), _BATCH_PARAMS):
                    client.log_batch(self.run_id, params=pairs[start : start + _BATCH_PARAMS])
            case {"tags": tags}:
                client.log_batch(self.run_id, tags=[RunTag(name, value) for name, value in tags.items()])
            case {"artifact": path}:
                client.log_artifact(self.run_id, path, call.get("to"))
            case {"confusion": path}:
                matrix = json.loads(Path(path).read_text(encoding="utf-8"))
                picture = Path(path).with_suffix(".png")
                write_atomically(picture, confusion_matrix_png(matrix["counts"], matrix["classes"]))
                client.log_artifact(self.run_id, str(picture))
            case {"model": path}:
                _log_model(Path(path), self.run_id)
            case {"status": status}:
                client.set_terminated(self.run_id, status)


def replay(folder: ExperimentFolder, uri: str) -> None:
    """Send what an ended experiment's journal still holds; for when MLflow was away until its end.

    Raises what MLflow raises while it is away. Not to be called while an attempt of the experiment lives.
    """
    if folder.journal.exists():
        spec = read_spec(folder.spec)
        Sender(folder, uri, run_name=spec.name, project=spec.project).send(threading.Event())


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """A spec as MLflow's params: the path of every leaf, joined by dots, to its value as text."""
    if isinstance(value, Mapping):
        pairs = [flatten(inner, f"{prefix}.{name}" if prefix else name) for name, inner in value.items()]
        return {name: text for pair in pairs for name, text in pair.items()}
    return {prefix: value if isinstance(value, str) else json.dumps(value)}


def _calls(pending: list[tuple[dict[str, Any], int]]) -> Iterator[tuple[dict[str, Any], int]]:
    """The records as calls to MLflow: runs of metrics become batches, everything keeps its order."""
    values: list[tuple[str, float, int, int]] = []
    end = 0
    for record, offset in pending:
        metrics = record.get("metrics", {})
        if values and (not metrics or len(values) + len(metrics) > _BATCH_VALUES):
            yield {"values": values}, end
            values = []
        if metrics:
            values += [(name, value, record["time"], record["step"]) for name, value in metrics.items()]
        else:
            yield record, offset
        end = offset
    if values:
        yield {"values": values}, end


def _log_model(weights: Path, run_id: str) -> None:
    """Log the classifier with its signature. Pickled by reference: loading it takes an installed cbam-lab.

    MLflow's other format, torch.export, needs no cbam-lab, but seconds to trace even a small network.
    """
    import mlflow.pytorch
    import numpy as np
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    from workers.classifier import load_classifier

    classifier, input_shape = load_classifier(weights)
    classes = classifier(torch.zeros(1, *input_shape)).shape[1]
    floats = np.dtype("float32")
    Model.log(
        artifact_path=None,
        name="model",
        flavor=mlflow.pytorch,
        run_id=run_id,
        pytorch_model=classifier,
        signature=ModelSignature(
            Schema([TensorSpec(floats, (-1, *input_shape))]),
            Schema([TensorSpec(floats, (-1, classes))]),
        ),
        pip_requirements=[f"{name}=={_version(name)}" for name in ("cbam-lab", "torch")],
        serialization_format="pickle",
    )


def _provenance() -> dict[str, str]:
    """Where the result comes from: versions of what made it, and the commit of the code where it is a checkout."""
    tags = {f"version.{name}": _version(name) for name in _PACKAGES} | {"version.python": sys.version.split()[0]}
    if commit := os.environ.get("CBAM_GIT_COMMIT") or _git_commit():
        tags["mlflow.source.git.commit"] = commit
    return tags


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _system_metrics() -> dict[str, float]:
    """Of this worker and its machine, by the names of MLflow's own system metrics."""
    memory, process = psutil.virtual_memory(), psutil.Process()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": process.memory_info().rss / 1e6,
    }


def _now() -> int:
    return time.time_ns() // 1_000_000


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
