"""What a finished training hands on: its weights as safetensors, with all that is needed to use them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from cbam_core.normalisation import Normalisation
from cbam_core.semantics import Semantics
from cbam_core.spec import ExperimentSpec
from workers.export.programs import check_weights, write_programs
from workers.protocol.storage import ExperimentFolder, make_folder, write_atomically


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained network, and what is needed to use it.

    input_shape  of an image, C H W
    device       where it was trained
    semantics    the meaning of the experiment
    confusions   classes, counts and accuracy on val and test, as far as there are any
    """

    network: nn.Module
    spec: ExperimentSpec
    classes: Sequence[str]
    input_shape: Sequence[int]
    normalisation: Normalisation
    device: torch.device
    semantics: Semantics
    confusions: Mapping[str, Mapping[str, Any]]


def export(trained: Trained, folder: ExperimentFolder) -> None:
    """Write the final weights, the programs that the spec asks for and the confusion matrices into `folder`.

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
    places = {"val": folder.confusion_matrix, "test": folder.test_confusion_matrix}
    for part, confusion in trained.confusions.items():
        write_atomically(places[part], json.dumps(confusion), parents=False)
