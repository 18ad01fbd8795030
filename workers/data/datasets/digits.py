"""The 1,797 handwritten digits that scikit-learn ships (UCI, Alpaydin and Kaynak 1998), 8×8."""

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cbam_core.errors import DataError
from workers.data.datasets.base import Split
from workers.data.datasets.source import Source
from workers.seeding import seed_of

CLASSES = tuple("0123456789")
TEST_SHARE = 0.2


def load_digits() -> Source:
    """The digits at 8×8, split once and for all: a fifth of every class is for the test."""
    images, labels = read_digits()
    test = stratified_test_mask(labels)
    return Source(Split(images[~test], labels[~test]), Split(images[test], labels[test]), CLASSES)


def read_digits() -> tuple[Tensor, Tensor]:
    """uint8 images in N 1 8 8, scaled from 0..16 to 0..255, and labels in N.

    Reads scikit-learn's file without importing scikit-learn, which would take longer than a small training's start.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise DataError("the digits come with scikit-learn, which is not installed: pip install scikit-learn")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)  # 64 pixels, then the label
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"cannot read scikit-learn's digits ({path}): {error}; reinstall scikit-learn") from error
    pixels = torch.from_numpy(rows[:, :64].reshape(-1, 1, 8, 8).astype(np.float32))
    return (pixels * (255 / 16)).round().to(torch.uint8), torch.from_numpy(rows[:, 64].astype(np.int64))


def stratified_test_mask(labels: Tensor) -> Tensor:
    """True for the test images: the same share of every class, the same images in every experiment."""
    generator = torch.Generator().manual_seed(seed_of("digits", "test"))
    mask = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        members = torch.nonzero(labels == label).flatten()
        order = torch.randperm(len(members), generator=generator)
        mask[members[order[: int(TEST_SHARE * len(members))]]] = True
    return mask
