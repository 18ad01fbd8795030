"""Random pixels and random labels: nothing to learn, and nothing to read, for measuring speed."""

import torch

from cbam_core.datasets import DATASETS
from workers.data.dataset import Dataset, Split
from workers.seeding import generator_of


def load_synthetic(image_size: int) -> Dataset:
    """As many images and classes as the catalogue says, of `image_size`, the same in every experiment."""
    facts = DATASETS["synthetic"]

    def split(name: str, count: int) -> Split:
        generator = generator_of("synthetic", name)
        shape = (count, facts.channels, image_size, image_size)
        images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        return Split(images, torch.randint(facts.classes, (count,), generator=generator))

    classes = tuple(str(number) for number in range(facts.classes))
    return Dataset.of(split("train", facts.train_images), split("test", facts.test_images), classes)
