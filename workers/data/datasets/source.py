"""A dataset as it is published, in memory: one part to learn from, one held out; and what becomes train, val, test."""

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from cbam_core.spec import DataSpec
from workers.data.datasets.base import Dataset, Split
from workers.data.splits import same_pixels, val_mask

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Images of the size at which they are published. `groups` (N of train) says what must stay in one part."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    groups: Tensor | None = None

    def divide(self, data: DataSpec) -> Dataset:
        """Val cut from the training images, or the part held out; all resized. Raises DataError where none is left.

        Images with the same pixels stay in one part.
        """
        val, image_size = data.val, data.image_size
        if val == "folder":
            train, held_out = self.train.resized(image_size), self.test.resized(image_size)
            return Dataset.of(train, held_out, None, self.classes, data.became)
        mask = val_mask(self.train.labels, val, self._together())
        parts = (self.train.some(~mask), self.train.some(mask), self.test)
        train, chosen, test = (part.resized(image_size) for part in parts)
        return Dataset.of(train, chosen, test, self.classes, data.became)

    def _together(self) -> Tensor:
        if self.groups is not None:
            return self.groups
        numbers = same_pixels(torch.cat([self.train.images, self.test.images]))
        mine, theirs = numbers[: len(self.train)], numbers[len(self.train) :]
        if twice := int(torch.isin(theirs, mine).sum()):
            logger.warning("%d of the %d test images are, pixel for pixel, training images too", twice, len(theirs))
        return mine
