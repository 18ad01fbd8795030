"""Random pixels and random labels: nothing to learn, and nothing to read, for measuring speed."""

import torch

from workers.data.datasets.base import Split
from workers.data.datasets.source import Source
from workers.seeding import generator_of

CLASSES = tuple(str(number) for number in range(1000))


def load_synthetic(image_size: int) -> Source:
    """2,048 training and 256 test images of `image_size` in three channels, the same in every experiment."""

    def split(name: str, count: int) -> Split:
        generator = generator_of("synthetic", name)
        shape = (count, 3, image_size, image_size)
        images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        return Split(images, torch.randint(len(CLASSES), (count,), generator=generator))

    train = split("train", 2048)
    return Source(train, split("test", 256), CLASSES, groups=train.origin)  # random pixels: no two are the same
