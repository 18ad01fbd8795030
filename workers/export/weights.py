"""What a finished training hands on: its weights as safetensors, with all that is needed to use them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from cbam_core.normalisation import Normalisation
from cbam_core.semantics import Semantics
from cbam_core.spec import ExperimentSpec
from workers.export.predictions import PredictionRows, write_predictions
from workers.export.programs import check_weights, write_programs
from workers.protocol.storage import MANIFEST, ExperimentFolder, make_folder, write_atomically


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network, and what is needed to use it.

    input_shape  of an image, C H W
    device       where it was trained
    semantics    the meaning of the experiment
    confusions   classes, counts and accuracy on val and test, as far as there are any
    predictions  what is said of each image of them
    """

    network: nn.Module
    spec: ExperimentSpec
    classes: Sequence[str]
    input_shape: Sequence[int]
    normalisation: Normalisation
    device: torch.device
    semantics: Semantics
    confusions: Mapping[str, Mapping[str, Any]]
    predictions: Sequence[PredictionRows]


def export(trained: Trained, folder: ExperimentFolder) -> None:
    """Write the final weights, the programs that the spec asks for, the predictions and the confusion matrices into
    `folder`, then the manifest of these files.

    Raises ExportError where any of them gives other scores than the trained network.
    """
    metadata = {
        "semantics": str(trained.semantics),
        "spec": trained.spec.model_dump_json(),
        "classes": json.dumps(trained.classes),
        "mean": json.dumps(trained.normalisation.mean),
        "std": json.dumps(trained.normalisation.std),
        "input_shape": json.dumps(trained.input_shape),
    }
    weights = {name: value.detach().cpu().contiguous() for name, value in trained.network.state_dict().items()}
    make_folder(folder.export, parents=False)  # that of a deleted experiment is not made again
    write_atomically(folder.weights, save(weights, metadata), parents=False)
    check_weights(folder.weights, trained.network, trained.device)
    write_programs(folder, trained.spec.export)
    write_predictions(folder, trained.predictions, trained.classes)
    places = {"val": folder.confusion_matrix, "test": folder.test_confusion_matrix}
    for part, confusion in trained.confusions.items():
        write_atomically(places[part], json.dumps(confusion), parents=False)
    _write_manifest(folder.export)


def _write_manifest(folder: Path) -> None:
    """Say what the files of the folder are, so that who lists gigabytes need not read them."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and path.name != MANIFEST
    }
    write_atomically(folder / MANIFEST, json.dumps({"files": files}), parents=False)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
