"""A trained network as others use it: pixels in, class scores out."""

import json
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from cbam_core.networks import build_network
from cbam_core.spec import ExperimentSpec


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


def load_classifier(weights: Path) -> tuple[Classifier, tuple[int, int, int]]:
    """The classifier in an exported safetensors file, ready to predict, and its input shape C H W."""
    with safe_open(weights, framework="pt") as file:
        about = {name: json.loads(value) for name, value in file.metadata().items()}
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    channels, height, width = about["input_shape"]
    model = ExperimentSpec.model_validate(about["spec"]).model
    with torch.device("meta"):
        network = build_network(model, len(about["classes"]), channels)
    network.load_state_dict(state, assign=True)
    return Classifier(network, about["mean"], about["std"]).eval(), (channels, height, width)
