"""A trained network as others use it: pixels in, class scores out."""

import copy
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from cbam_core.networks import build_network
from cbam_core.semantics import EARLIEST, Semantics, known
from cbam_core.spec import ExperimentSpec, ModelSpec


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
    about = describe_weights(weights)
    with safe_open(weights, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    channels, height, width = about["input_shape"]
    model = ExperimentSpec.model_validate(about["spec"]).model.model_copy(update={"pretrained": False})
    shape = model, len(about["classes"]), channels
    semantics = known(about.get("semantics", EARLIEST))
    network = copy.deepcopy(_weightless(*shape, semantics))
    network.load_state_dict(state, assign=True)
    if any(buffer.is_meta for buffer in network.buffers()):  # those that are not saved, such as the filter of a blur
        network = build_network(*shape, semantics=semantics)
        network.load_state_dict(state)
    return Classifier(network, about["mean"], about["std"]).eval(), (channels, height, width)


def describe_weights(weights: Path) -> dict[str, Any]:
    """What an exported safetensors file says of itself: spec, classes, mean, std, input_shape, semantics."""
    with safe_open(weights, framework="pt") as file:
        return {name: json.loads(value) for name, value in file.metadata().items()}


@lru_cache(maxsize=4)
def _weightless(model: ModelSpec, num_classes: int, in_channels: int, semantics: Semantics) -> nn.Module:
    """The network without memory, to be copied: that takes a third of the time of building it on the meta device."""
    with torch.device("meta"):
        return build_network(model, num_classes, in_channels, semantics=semantics)
