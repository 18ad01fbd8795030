"""Where metrics go: nowhere (Tracker), into a file, or from there to MLflow, without ever holding up the training."""

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cbam_core.errors import CheckpointError, Superseded
from cbam_core.tags import reserved
from workers.protocol.assignment import Assignment
from workers.protocol.fence import Fence
from workers.protocol.outcome import Outcome
from workers.protocol.storage import ExperimentFolder
from workers.tracking.confusion_matrix import confusion_artifacts
from workers.tracking.journal import Journal
from workers.tracking.provenance import provenance, system_metrics, version_of
from workers.tracking.run_identity import IDENTITY_TAGS, RunIdentity, begin

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

logger = logging.getLogger(__name__)
DESCRIPTION_TAG = "mlflow.note.content"  # what MLflow shows as the run's description, in Markdown
FLUSH_SECONDS = 2.0
SYSTEM_SECONDS = 10.0
CLOSE_SECONDS = float(os.environ.get("CBAM_TRACKING_CLOSE_SECONDS", "60"))
_BATCH_LIMITS = {"metrics": 1000, "params": 100, "tags": 100}  # the most that MLflow takes in one log_batch
_STEPS_BEFORE_FIRST_FLUSH = 3
_STATUS = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}
_REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}  # MLflow would refuse it again: no use in sending it again
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the journal does the retrying; here a run would be created twice
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Tracker:
    """Tracks nothing: what every rank but the first uses."""

    run_id: str | None = None

    def tag(self, tags: Mapping[str, str]) -> None:
        """Facts about the run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Values measured at `step`."""

    def sync(self) -> None:
        """Have what was logged outlast the loss of this machine: a checkpoint is about to go on behind it."""

    def close(self, outcome: Outcome) -> bool:  # noqa: ARG002
        """The attempt ended like this; hand over what is left, in bounded time.

        Returns whether the run has ended with it, and MLflow knows all of it.
        """
        return False


class JournalTracker(Tracker):
    """Writes all to the experiment's journal, at once: the service shows its curves, with and without an MLflow."""

    def __init__(self, assignment: Assignment) -> None:
        self._spec = assignment.spec
        self._folder = assignment.folder
        self._journal = Journal(assignment.folder.journal)
        self._fence = Fence(assignment)
        if self._journal.is_new:
            begin(self._folder)
            self._journal.append({"artifact": str(self._folder.spec)})  # a call of its own: what follows goes in one
            params = list(flatten(self._spec.model_dump(mode="json")).items())
            most = _BATCH_LIMITS["params"]
            for start in range(0, len(params), most):
                self._journal.append({"params": dict(params[start : start + most])})
        ours = reserved(self._spec.tags)  # a spec may have been stored before they were refused
        if ours:
            logger.warning("tags of the spec that are not the user's to give are left out: %s", ", ".join(ours))
        theirs = {name: value for name, value in self._spec.tags.items() if name not in ours}
        self.tag(theirs | provenance() | {"cbam.attempt": str(assignment.attempt)})
        if self._spec.description:
            self.tag({DESCRIPTION_TAG: self._spec.description})

    def tag(self, tags: Mapping[str, str]) -> None:
        """Facts about the run."""
        self._journal.append({"tags": dict(tags)})

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Values measured at `step`. Raises Superseded where another attempt writes the journal."""
        self._fence.check_now_and_then()
        self._journal.append_metrics(step, metrics, time.time_ns() // 1_000_000)

    def sync(self) -> None:
        """Have what was logged outlast the loss of this machine. Raises CheckpointError where storage fails."""
        try:
            self._journal.sync()
        except OSError as error:
            raise CheckpointError(f"cannot write the journal: {error}") from error

    def close(self, outcome: Outcome) -> bool:
        """Write no more."""
        try:
            self._journal.sync()
        except OSError as error:
            logger.warning("the end of the journal would not outlast the loss of this machine: %s", error)
        self._journal.close()
        return super().close(outcome)


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
            self._journal.append({"confusion": str(self._folder.confusion_matrix)})
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
                logger.warning("MLflow is away, what is for it waits in the journal: %s", _one_line(error))
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


class Sender:
    """Sends a journal to MLflow, from where the last sender stopped, in order. Made anew after a crash, it goes on."""

    def __init__(
        self, folder: ExperimentFolder, uri: str, *, run_name: str, project: str, journal: Journal | None = None
    ) -> None:
        self.journal = journal or Journal(folder.journal)
        self.run_id: str | None = None
        self._uri = uri
        self._identity = RunIdentity(folder, self.journal, project=project, run_name=run_name)
        self._client: MlflowClient | None = None
        self._artifacts: ArtifactRepository  # those of the run, once it is known
        self._project_id = ""
        self.refused_status = False  # by MLflow, which does not know then how the run ended

    def send(self, may_send: Callable[[], bool]) -> None:
        """Send what the journal holds, call by call while it may. Raises what MLflow raises while it is away."""
        if self.run_id is None and self.journal.pending() and may_send():
            self._connect()  # it may be a new run, to which all is pending
        while pending := self.journal.pending():
            for records, offset in _batches(pending):
                if not may_send():
                    return
                self._send_one(self._connect(), records)
                self.journal.mark_sent(offset)

    def _connect(self) -> "MlflowClient":
        if self._client is None:
            _set_environment()
            import mlflow

            self._client = mlflow.MlflowClient(self._uri)
        if self.run_id is None:
            run = self._identity.ensure(self._client)
            self._project_id = str(run.info.experiment_id)
            self.run_id, self._artifacts = str(run.info.run_id), _artifacts_at(run.info.artifact_uri, self._uri)
        return self._client

    def _send_one(self, client: "MlflowClient", records: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._dispatch(client, records)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # the run is gone: the next try sees what to do
                self.run_id = None
            if error.error_code not in _REFUSED:
                raise
            if len(records) > 1:  # only one of them is to blame
                for record in records:
                    self._send_one(client, [record])
                return
            self.refused_status |= "status" in records[0]
            logger.warning("MLflow refuses %s: %s", ", ".join(records[0]), _one_line(error))

    def _dispatch(self, client: "MlflowClient", records: Sequence[Mapping[str, Any]]) -> None:
        assert self.run_id is not None
        match records[0]:
            case {"artifact": path, **rest}:
                self._artifacts.log_artifact(path, rest.get("to"))
            case {"confusion": path}:
                for made in confusion_artifacts(Path(path)):
                    self._artifacts.log_artifact(str(made))
            case {"model": path}:
                _log_model(client, Path(path), self.run_id, self._project_id)
            case {"status": status}:
                client.set_terminated(self.run_id, status)
            case _:
                _log_batch(client, self.run_id, records)


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """A spec as MLflow's params: the path of every leaf, joined by dots, to its value as text."""
    if isinstance(value, Mapping):
        pairs = [flatten(inner, f"{prefix}.{name}" if prefix else name) for name, inner in value.items()]
        return {name: text for pair in pairs for name, text in pair.items()}
    return {prefix: value if isinstance(value, str) else json.dumps(value)}


def _batches(pending: list[tuple[dict[str, Any], int]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """The records as calls to MLflow: what one log_batch can take goes together, and everything keeps its order."""
    batch: list[dict[str, Any]] = []
    size = dict.fromkeys(_BATCH_LIMITS, 0)
    end = 0
    for record, offset in pending:
        counts = {kind: len(record.get(kind, ())) for kind in _BATCH_LIMITS}
        fits = any(counts.values()) and all(size[kind] + counts[kind] <= most for kind, most in _BATCH_LIMITS.items())
        if batch and not fits:
            yield batch, end
            batch, size = [], dict.fromkeys(_BATCH_LIMITS, 0)
        if any(counts.values()):
            batch.append(record)
            size = {kind: size[kind] + counts[kind] for kind in _BATCH_LIMITS}
        else:
            yield [record], offset
        end = offset
    if batch:
        yield batch, end


def _log_batch(client: "MlflowClient", run_id: str, records: Sequence[Mapping[str, Any]]) -> None:
    from mlflow.entities import Metric, Param, RunTag

    client.log_batch(
        run_id,
        metrics=[
            Metric(name, value, record["time"], record["step"])
            for record in records
            for name, value in record.get("metrics", {}).items()
        ],
        params=[Param(*pair) for record in records for pair in record.get("params", {}).items()],
        tags=[
            RunTag(name, value)
            for record in records
            for name, value in record.get("tags", {}).items()
            if name not in IDENTITY_TAGS  # those of a spec, in a journal of before they were left out
        ],
    )


def _log_model(client: "MlflowClient", weights: Path, run_id: str, project_id: str) -> None:
    """Log the classifier with its signature. Pickled by reference: loading it takes an installed cbam-lab.

    MLflow's other format, torch.export, needs no cbam-lab, but seconds to trace even a small network. Its own
    `log_model` reads the history of every metric back, one call each, which takes longer than a short training.
    """
    import mlflow.pytorch
    import numpy as np
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    from workers.classifier import describe_weights, load_classifier

    classifier, input_shape = load_classifier(weights)
    about = describe_weights(weights)
    floats, classes = np.dtype("float32"), len(about["classes"])
    model = client.create_logged_model(project_id, name="model", source_run_id=run_id, params=flatten(about["spec"]))
    with tempfile.TemporaryDirectory() as folder:
        mlflow.pytorch.save_model(
            classifier,
            folder,
            mlflow_model=Model(model.artifact_location, run_id, model_uuid=model.model_id, model_id=model.model_id),
            signature=ModelSignature(
                Schema([TensorSpec(floats, (-1, *input_shape))]), Schema([TensorSpec(floats, (-1, classes))])
            ),
            pip_requirements=[f"{name}=={version_of(name)}" for name in ("cbam-lab", "torch")],
            serialization_format="pickle",
        )
        _artifacts_at(model.artifact_location, client.tracking_uri).log_artifacts(folder)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])


def _artifacts_at(location: str, uri: str) -> "ArtifactRepository":
    """Those of a run or a model; the client would look up where they are, with a call for each."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, uri)


def load_mlflow() -> None:
    """Import all of it that a run needs, and have it look which packages are installed, as the first model would."""
    _set_environment()
    import mlflow.pytorch  # noqa: F401
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

    warn_dependency_requirement_mismatches([f"mlflow-skinny=={version_of('mlflow-skinny')}"])


def _set_environment() -> None:
    """What MLflow reads while it is imported, or at its first request."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("mlflow.pytorch").setLevel(logging.ERROR)  # it warns of pickle at every model


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
