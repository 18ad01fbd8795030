"""What a finished training hands on: its weights as safetensors, with all that is needed to use them."""

import json
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from workers.storage import write_atomically
from workers.train.loop import Trainer

WEIGHTS = "model.safetensors"
CONFUSION = "confusion_matrix.json"


class Classifier(nn.Module):
    """A trained network that takes pixels as they are: images N C H W in 0..1 to class scores N num_classes."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (N num_classes) of images N C H W in 0..1."""
        scores: Tensor = self.network((images - self.mean) / self.std)
        return scores


def export(trainer: Trainer, folder: Path) -> None:
    """Write the final weights and the confusion matrix of the last evaluation into `folder`."""
    dataset = trainer.dataset
    metadata = {
        "spec": trainer.spec.model_dump_json(),
        "classes": json.dumps(dataset.classes),
        "mean": json.dumps(dataset.mean),
        "std": json.dumps(dataset.std),
        "input_shape": json.dumps(dataset.input_shape),
    }
    weights = {name: value.detach().cpu().contiguous() for name, value in trainer.network.state_dict().items()}
    write_atomically(folder / WEIGHTS, save(weights, metadata))
    if trainer.evaluation is not None:
        matrix = {"classes": dataset.classes, "counts": trainer.evaluation.confusion.tolist()}
        write_atomically(folder / CONFUSION, json.dumps(matrix))
