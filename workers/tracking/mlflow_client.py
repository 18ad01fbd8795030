"""Calls of MLflow's client: its settings, its limits, batches and artifacts."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workers.protocol.addresses import without_proxy_to_loopback
from workers.tracking.provenance import version_of
from workers.tracking.run_identity import IDENTITY_TAGS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repo import ArtifactRepository


BATCH_LIMITS = {"metrics": 1000, "params": 100, "tags": 100}  # the most that MLflow takes in one log_batch


REFUSED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}  # MLflow would refuse it again: no use in sending it again


_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the journal does the retrying; here a run would be created twice
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """A spec as MLflow's params: the path of every leaf, joined by dots, to its value as text."""
    if isinstance(value, Mapping):
        pairs = [flatten(inner, f"{prefix}.{name}" if prefix else name) for name, inner in value.items()]
        return {name: text for pair in pairs for name, text in pair.items()}
    return {prefix: value if isinstance(value, str) else json.dumps(value)}


def log_batch(client: "MlflowClient", run_id: str, records: Sequence[Mapping[str, Any]]) -> None:
    """Send records of the journal in one call: their metrics, parameters and tags."""
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


def artifacts_at(location: str, uri: str) -> "ArtifactRepository":
    """Those of a run or a model; the client would look up where they are, with a call for each."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(location, uri)


def load_mlflow() -> None:
    """Import all of it that a run needs, and have it look which packages are installed, as the first model would."""
    set_environment()
    import mlflow.pytorch  # noqa: F401
    from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

    warn_dependency_requirement_mismatches([f"mlflow-skinny=={version_of('mlflow-skinny')}"])


def set_environment() -> None:
    """What MLflow reads while it is imported, or at its first request."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.update(without_proxy_to_loopback(os.environ))
    logging.getLogger("mlflow.pytorch").setLevel(logging.ERROR)  # it warns of pickle at every model


def one_line(error: Exception) -> str:
    """The words of an error, 300 characters at most."""
    return " ".join(str(error).split())[:300]
