"""How good the network is: every image of a part counted exactly once, over all ranks."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from workers.train.distributed import ProcessGroup
from workers.train.predictions import PredictionCollector

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Evaluation:
    """What one pass over the images of a part gave. `confusion[true, predicted]` counts images."""

    loss: float
    confusion: Tensor
    top5: float
    calibration_error: float

    @property
    def images(self) -> int:
        """How many images were counted."""
        return int(self.confusion.sum())

    @property
    def top1(self) -> float:
        """Share of the images whose most probable class is the right one."""
        return int(self.confusion.diagonal().sum()) / self.images

    @property
    def per_class(self) -> list[float | None]:
        """Share of every class's images that are found; None for a class without any."""
        totals = self.confusion.sum(1).tolist()
        return [
            right / total if total else None
            for right, total in zip(self.confusion.diagonal().tolist(), totals, strict=True)
        ]

    def metrics(self, part: str) -> dict[str, float]:
        """By the names MLflow shows: val/top1 and so on."""
        values = {"loss": self.loss, "top1": self.top1, "calibration_error": self.calibration_error}
        if len(self.confusion) > 5:
            values["top5"] = self.top5
        return {f"{part}/{name}": value for name, value in values.items()}


@torch.inference_mode()
def evaluate(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    gang: ProcessGroup,
    *,
    num_classes: int,
    stop: Callable[[], object],
    collector: PredictionCollector | None = None,
) -> Evaluation | None:
    """Evaluate `predict` on this rank's `batches` and add up over the gang; None where `stop` says to leave off.

    All ranks have equally many batches, some possibly empty. A `collector` takes what is said of each image.
    """
    sums = torch.zeros(2, dtype=torch.float64, device=gang.device)  # loss, images right within five
    confusion = torch.zeros(num_classes * num_classes, dtype=torch.int64, device=gang.device)
    calibration = torch.zeros(CALIBRATION_BINS, 2, dtype=torch.float64, device=gang.device)
    for images, labels in batches:
        if stop():
            return None
        if len(labels):
            scores = predict(images).float()
            within_five = (scores.topk(min(5, num_classes)).indices == labels[:, None]).any(1)
            sums += torch.stack([F.cross_entropy(scores, labels, reduction="sum").double(), within_five.sum().double()])
            confusion += torch.bincount(labels * num_classes + scores.argmax(1), minlength=num_classes * num_classes)
            if collector is not None:
                collector.add(scores, labels)
            calibration += _confidence_and_hits(scores, labels)
    confusion = gang.sum(confusion).view(num_classes, num_classes)
    count = int(confusion.sum())
    loss, within = (gang.sum(sums) / count).tolist()
    return Evaluation(loss, confusion.cpu(), within, _calibration_error(gang.sum(calibration), count))


def _confidence_and_hits(scores: Tensor, labels: Tensor) -> Tensor:
    """Summed confidence and number of right answers per bin of confidence."""
    confidence, predicted = scores.double().softmax(1).max(1)
    bins = (confidence.nan_to_num() * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    pairs = torch.stack([confidence, (predicted == labels).double()], dim=1)
    return F.one_hot(bins, CALIBRATION_BINS).double().T @ pairs


def _calibration_error(sums: Tensor, count: int) -> float:
    """Expected calibration error (Guo et al. 2017): how far confidence and accuracy are apart, weighted by images."""
    return float((sums[:, 0] - sums[:, 1]).abs().sum() / count)
