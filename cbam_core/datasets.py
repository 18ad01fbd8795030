"""The datasets a spec may name and the facts a server needs about them. Torch-free; workers/data/ reads them."""

from dataclasses import dataclass


def cut_count(images: int, fraction: float) -> int:
    """How many of so many images become another part: the fraction, rounded half up, and at least one."""
    return max(1, int(images * fraction + 0.5))


@dataclass(frozen=True)
class PartSizes:
    """Images of each part of a training; None where the folder on disk decides, and test also where there is none."""

    train: int | None
    val: int | None
    test: int | None


@dataclass(frozen=True)
class DatasetFacts:
    """What is known without reading it, of the dataset as it is published; None where the folder on disk decides."""

    title: str
    classes: int | None
    channels: int
    train_images: int | None
    test_images: int | None
    needs_root: bool

    def divided(self, val_fraction: float | None) -> PartSizes:
        """Val cut from the training images, or, where the fraction is None, the part held out."""
        if self.train_images is None or val_fraction is None:
            return PartSizes(self.train_images, self.test_images if val_fraction is None else None, None)
        val = cut_count(self.train_images, val_fraction)
        return PartSizes(self.train_images - val, val, self.test_images)


DOWNLOADABLE = ("cifar10", "cifar100", "fashion_mnist")
"""Those that `download` fetches."""

DATASETS: dict[str, DatasetFacts] = {
    "digits": DatasetFacts("1,797 handwritten digits, 8×8, that scikit-learn ships", 10, 1, 1442, 355, False),
    "cluttered_digits": DatasetFacts(
        "one such digit somewhere among fragments of others, drawn from a fixed seed", 10, 1, 8000, 2000, False
    ),
    "cifar10": DatasetFacts("CIFAR-10, the folder cifar-10-batches-py below root", 10, 3, 50_000, 10_000, True),
    "cifar100": DatasetFacts("CIFAR-100, the folder cifar-100-python below root", 100, 3, 50_000, 10_000, True),
    "fashion_mnist": DatasetFacts("Fashion-MNIST, its four idx files below root", 10, 1, 60_000, 10_000, True),
    "imagefolder": DatasetFacts(
        "your own images below root: <class>/…, or train/<class>/… with or without val/ and test/",
        None,
        3,
        None,
        None,
        True,
    ),
    "synthetic": DatasetFacts("random pixels and labels, to measure speed with", 1000, 3, 2048, 256, False),
}
