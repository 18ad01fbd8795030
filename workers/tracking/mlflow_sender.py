"""Send the journal of an experiment to its MLflow run, in order and in batches."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workers.protocol.storage import ExperimentFolder
from workers.tracking.confusion_matrix import confusion_artifacts
from workers.tracking.journal import Journal
from workers.tracking.mlflow_client import BATCH_LIMITS, REFUSED, artifacts_at, log_batch, one_line, set_environment
from workers.tracking.mlflow_model import log_model
from workers.tracking.run_identity import RunIdentity

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

logger = logging.getLogger(__name__)


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
        self.project_id = ""
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
            set_environment()
            import mlflow

            self._client = mlflow.MlflowClient(self._uri)
        if self.run_id is None:
            run = self._identity.ensure(self._client)
            self.project_id = str(run.info.experiment_id)
            self.run_id, self._artifacts = str(run.info.run_id), artifacts_at(run.info.artifact_uri, self._uri)
        return self._client

    def _send_one(self, client: "MlflowClient", records: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._dispatch(client, records)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":  # the run is gone: the next try sees what to do
                self.run_id = None
            if error.error_code not in REFUSED:
                raise
            if len(records) > 1:  # only one of them is to blame
                for record in records:
                    self._send_one(client, [record])
                return
            self.refused_status |= "status" in records[0]
            logger.warning("MLflow refuses %s: %s", ", ".join(records[0]), one_line(error))

    def _dispatch(self, client: "MlflowClient", records: Sequence[Mapping[str, Any]]) -> None:
        assert self.run_id is not None
        match records[0]:
            case {"artifact": path, **rest}:
                self._artifacts.log_artifact(path, rest.get("to"))
            case {"confusion": path}:
                for made in confusion_artifacts(Path(path)):
                    self._artifacts.log_artifact(str(made))
            case {"model": path}:
                log_model(client, Path(path), self.run_id, self.project_id)
            case {"status": status}:
                client.set_terminated(self.run_id, status)
            case _:
                log_batch(client, self.run_id, records)


def _batches(pending: list[tuple[dict[str, Any], int]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """The records as calls to MLflow: what one log_batch can take goes together, and everything keeps its order."""
    batch: list[dict[str, Any]] = []
    size = dict.fromkeys(BATCH_LIMITS, 0)
    end = 0
    for record, offset in pending:
        counts = {kind: len(record.get(kind, ())) for kind in BATCH_LIMITS}
        fits = any(counts.values()) and all(size[kind] + counts[kind] <= most for kind, most in BATCH_LIMITS.items())
        if batch and not fits:
            yield batch, end
            batch, size = [], dict.fromkeys(BATCH_LIMITS, 0)
        if any(counts.values()):
            batch.append(record)
            size = {kind: size[kind] + counts[kind] for kind in BATCH_LIMITS}
        else:
            yield [record], offset
        end = offset
    if batch:
        yield batch, end
