"""CIFAR-10 as its authors ship it (Krizhevsky 2009): pickled batches of 3×32×32 images.

The files are pickles, which could run code; only the few names that an array of bytes needs are let through.
"""

import pickle
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from cbam_core.errors import DataError
from workers.data.dataset import Dataset, Split, resize

FOLDER = "cifar-10-batches-py"
_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        self._refuse(module, name)

    def _refuse(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which no CIFAR file does")


def load_cifar10(root: Path, image_size: int) -> Dataset:
    """CIFAR-10 below `root`, at `image_size`. Raises DataError with what to do where it is missing or damaged."""
    folder = root if root.name == FOLDER else root / FOLDER
    if not folder.is_dir():
        raise DataError(
            f"no {FOLDER} in {root}: unpack cifar-10-python.tar.gz from cs.toronto.edu/~kriz/cifar.html there"
        )
    classes = tuple(str(name) for name in _read(folder / "batches.meta")["label_names"])
    train = [_read_batch(folder / f"data_batch_{number}") for number in range(1, 6)]
    images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
    test_images, test_labels = _read_batch(folder / "test_batch")
    for part in (labels, test_labels):
        if len(part) == 0 or not 0 <= int(part.min()) <= int(part.max()) < len(classes):
            raise DataError(f"{folder} has labels outside 0..{len(classes) - 1}; unpack it again")
    return Dataset.of(
        Split(resize(images, image_size), labels), Split(resize(test_images, image_size), test_labels), classes
    )


def _read_batch(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    values = _read(path)
    try:
        images = torch.from_numpy(np.asarray(values["data"], dtype=np.uint8).reshape(-1, 3, 32, 32).copy())
        return images, torch.tensor(values["labels"], dtype=torch.int64)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error}); unpack cifar-10-python.tar.gz again") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            values = _ArraysOnly(file, encoding="latin1").load()
    except (OSError, EOFError, pickle.UnpicklingError, ValueError, IndexError) as error:
        raise DataError(f"cannot read {path}: {error}; unpack cifar-10-python.tar.gz again") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is no CIFAR-10 file; unpack cifar-10-python.tar.gz again")
    return values
