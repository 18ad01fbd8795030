"""What a network keeps in memory between its forward and its backward pass."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH = 2  # the smallest that batch norm takes for a map of one place


@dataclass(frozen=True)
class KeptForBackward:
    """Bytes that autograd keeps for each image of a training batch, in fp32; `largest` is the largest single tensor."""

    bytes_per_image: int
    largest: int


def kept_for_backward(network: nn.Module, input_shape: tuple[int, int, int]) -> KeptForBackward:
    """Count what one training pass of `network`, of images of `input_shape` (C, H, W), keeps; weights are not counted.

    Every storage that autograd saves counts once, whoever shares it. A network on the meta device is counted without
    computing or allocating anything. Raises what the network raises on a wrong shape.
    """
    first = next(network.parameters())
    images = torch.zeros(BATCH, *input_shape, device=first.device, dtype=first.dtype)
    labels = torch.zeros(BATCH, device=first.device, dtype=torch.long)
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    saved: dict[int, torch.UntypedStorage] = {}  # held, so that no storage takes the place of one that has gone

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    was_training = network.training
    network.train()
    try:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            F.cross_entropy(network(images), labels)
    finally:
        network.train(was_training)
    sizes = [storage.nbytes() for storage in saved.values()]
    return KeptForBackward(sum(sizes) // BATCH, max(sizes, default=0) // BATCH)
