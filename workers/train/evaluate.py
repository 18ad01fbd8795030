"""How good the network is: every test image counted exactly once, over all ranks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from workers.train.gang import Gang


@dataclass(frozen=True)
class Evaluation:
    """What one pass over the test images gave. `confusion[true, predicted]` counts images."""

    loss: float
    confusion: Tensor

    @property
    def images(self) -> int:
        """How many images were counted."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of the images whose most probable class is the right one."""
        return int(self.confusion.diagonal().sum()) / self.images

    def metrics(self) -> dict[str, float]:
        """By the names MLflow shows."""
        return {"val/loss": self.loss, "val/top1": self.top1}


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    gang: Gang,
    *,
    num_classes: int,
    stop: Callable[[], object],
) -> Evaluation | None:
    """Evaluate `network` on this rank's `batches` and add up over the gang; None where `stop` says to leave off.

    All ranks have equally many batches, some possibly empty.
    """
    was_training = network.training
    network.eval()
    loss = torch.zeros((), dtype=torch.float64, device=gang.device)
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=gang.device)
    for images, labels in batches:
        if stop():
            network.train(was_training)
            return None
        if len(labels):
            logits = network(images).float()
            loss += F.cross_entropy(logits, labels, reduction="sum")
            confusion += torch.bincount(labels * num_classes + logits.argmax(1), minlength=num_classes * num_classes)
    network.train(was_training)
    confusion = gang.sum(confusion).view(num_classes, num_classes)
    total = gang.sum(loss) / confusion.sum()
    return Evaluation(total.item(), confusion.cpu())
