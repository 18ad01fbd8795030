"""The datasets a spec may name and the facts a server needs about them. Torch-free; workers/data/ reads them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetFacts:
    """`classes` and the image counts are None where the folder on disk decides."""

    title: str
    classes: int | None
    channels: int
    train_images: int | None
    test_images: int | None
    needs_root: bool


DATASETS: dict[str, DatasetFacts] = {
    "digits": DatasetFacts("1,797 handwritten digits, 8×8, shipped with scikit-learn", 10, 1, 1442, 355, False),
    "cifar10": DatasetFacts("CIFAR-10, 32×32, the folder cifar-10-batches-py", 10, 3, 50_000, 10_000, True),
}
