"""Log the classifier of a finished training as a model of MLflow."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from workers.tracking.mlflow_client import artifacts_at, flatten
from workers.tracking.provenance import version_of

if TYPE_CHECKING:
    from mlflow import MlflowClient


def log_model(client: "MlflowClient", weights: Path, run_id: str, project_id: str) -> None:
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
        artifacts_at(model.artifact_location, client.tracking_uri).log_artifacts(folder)
    client.finalize_logged_model(model.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
