"""CIFAR-10 and CIFAR-100 as their authors ship them (Krizhevsky 2009): pickled batches of 3×32×32 images.

The files are pickles, which could run code; only the few names that an array of bytes needs are let through.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from cbam_core.errors import DataError
from workers.data.dataset import Dataset, Split, resize

_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}
_DAMAGE = (OSError, EOFError, pickle.UnpicklingError, ValueError, KeyError, TypeError, IndexError, AttributeError)


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        self._refuse(module, name)

    def _refuse(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which no CIFAR file does")


@dataclass(frozen=True)
class _Layout:
    """What the files of one of the two datasets are called, and what they call their labels."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    names: str
    labels: str


_CIFAR10 = _Layout(
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    names="label_names",
    labels="labels",
)
_CIFAR100 = _Layout(
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test="test",
    meta="meta",
    names="fine_label_names",
    labels="fine_labels",
)


def load_cifar10(root: Path, image_size: int) -> Dataset:
    """CIFAR-10 below `root`, at `image_size`. Raises DataError with what to do where it is missing or damaged."""
    return _load(_CIFAR10, root, image_size)


def load_cifar100(root: Path, image_size: int) -> Dataset:
    """CIFAR-100 with its 100 fine classes, likewise."""
    return _load(_CIFAR100, root, image_size)


def _load(layout: _Layout, root: Path, image_size: int) -> Dataset:
    folder = root if root.name == layout.folder else root / layout.folder
    if not folder.is_dir():
        raise DataError(
            f"no {layout.folder} in {root}: unpack {layout.archive} (cs.toronto.edu/~kriz/cifar.html) there"
        )
    try:
        classes = tuple(str(name) for name in _read(folder / layout.meta)[layout.names])
        train = [_batch(_read(folder / name), layout.labels) for name in layout.train]
        images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
        test_images, test_labels = _batch(_read(folder / layout.test), layout.labels)
    except _DAMAGE as error:
        raise DataError(f"{folder} is damaged ({error!r}); unpack {layout.archive} again") from error
    for part in (labels, test_labels):
        if len(part) == 0 or not 0 <= int(part.min()) <= int(part.max()) < len(classes):
            raise DataError(f"{folder} has labels outside 0..{len(classes) - 1}; unpack {layout.archive} again")
    return Dataset.of(
        Split(resize(images, image_size), labels), Split(resize(test_images, image_size), test_labels), classes
    )


def _batch(values: dict[str, Any], labels: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = np.asarray(values["data"], dtype=np.uint8).reshape(-1, 3, 32, 32).copy()
    return torch.from_numpy(images), torch.tensor(values[labels], dtype=torch.int64)


def _read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        values = _ArraysOnly(file, encoding="latin1").load()
    if not isinstance(values, dict):
        raise ValueError(f"{path.name} holds {type(values).__name__}, not a dict")
    return values
