"""What a network says of every single image of a part, gathered over all ranks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workers.train.distributed import ProcessGroup


@dataclass(frozen=True)
class Predictions:
    """One row per image, in the order of the part; on the CPU.

    predicted    int64, N: the class with the largest score
    top5         int64, N K: the classes with the largest scores, best first; K is 5, or the number of classes
    probability  float32, N: of the right class
    loss         float32, N: cross-entropy in nats, without label smoothing
    """

    predicted: Tensor
    top5: Tensor
    probability: Tensor
    loss: Tensor


class PredictionCollector:
    """Takes this rank's scores batch by batch, and at the end gives those of all ranks.

    `places` (int64) says where in the part of `images` images each of this rank's stands, in the order in which they
    come.
    """

    def __init__(self, images: int, places: Tensor) -> None:
        self._images, self._places = images, places
        self._rows: list[Tensor] = []

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Class scores N num_classes (float32) and labels N of one batch; enqueued, nothing waits for the device."""
        right = scores.log_softmax(1).gather(1, labels[:, None])
        best = scores.topk(min(5, scores.shape[1])).indices
        columns = (scores.argmax(1, keepdim=True), right.exp(), -right, best)
        self._rows.append(torch.cat([column.double() for column in columns], dim=1))

    def gather(self, gang: ProcessGroup, *, num_classes: int) -> Predictions:
        """Every image's row, on every rank: each rank has put its own where the others have zeros."""
        width = 3 + min(5, num_classes)
        table = torch.zeros(self._images, width, dtype=torch.float64, device=gang.device)
        if self._rows:
            table[self._places.to(gang.device)] = torch.cat(self._rows)
        table = gang.sum(table).cpu()
        return Predictions(table[:, 0].long(), table[:, 3:].long(), table[:, 1].float(), table[:, 2].float())
