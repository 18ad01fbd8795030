"""Evaluates the parts of a dataset, and keeps what the network says at the end of its training of every image."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from cbam_core.image_folders.layout import PartName
from workers.data.batches import Batches
from workers.data.datasets.base import Dataset
from workers.train.distributed import ProcessGroup
from workers.train.evaluate import Evaluation, evaluate
from workers.train.predictions import PredictionCollector, Predictions

AssessedName = Literal["val", "test", "test_best"]
"""The final weights on val and on test, and those of the best checkpoint on test."""


@dataclass(frozen=True)
class Assessed:
    """What the network says of a part, in all and of each image."""

    evaluation: Evaluation
    predictions: Predictions


class Evaluator:
    """Evaluates one rank's share of a part; all ranks call it alike. `kept` is by what it was kept as."""

    def __init__(self, dataset: Dataset, batches: Batches, gang: ProcessGroup, *, stop: Callable[[], object]) -> None:
        self._dataset, self._batches, self._gang, self._stop = dataset, batches, gang, stop
        self.kept: dict[AssessedName, Assessed] = {}

    def evaluate(
        self, part: PartName, predict: Callable[[Tensor], Tensor], *, keep_as: AssessedName | None = None
    ) -> Evaluation | None:
        """One pass over `part`, with every prediction kept where `keep_as` says so; None where `stop` says to leave."""
        classes = self._dataset.num_classes
        collector = PredictionCollector(self._batches.size(part), self._batches.places(part)) if keep_as else None
        evaluation = evaluate(
            predict,
            self._batches.evaluated(part),
            self._gang,
            num_classes=classes,
            stop=self._stop,
            collector=collector,
        )
        if evaluation is not None and keep_as is not None and collector is not None:
            self.kept[keep_as] = Assessed(evaluation, collector.gather(self._gang, num_classes=classes))
        return evaluation
