"""CIFAR-10 and CIFAR-100 as their authors ship them (Krizhevsky 2009): pickled batches of 3×32×32 images.

The files are pickles, which could run code; only the few names that an array of bytes needs are let through.
"""

import contextlib
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from workers.data.datasets.base import Split
from workers.data.datasets.checksums import warn_of_others
from workers.data.datasets.source import Source

_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}
_LONGEST_CAUSE = 200
"""Characters of it in a message: it may quote the file."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _encode
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        self._refuse(module, name)

    def _refuse(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which no CIFAR file does")


def _encode(text: str, encoding: str) -> bytes:
    """How Python 3 pickles bytes for Python 2; other codecs would make much of little, and can be chained."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it holds text in {encoding}, which no CIFAR file does")
    return text.encode("latin1")


@dataclass(frozen=True)
class _Layout:
    """What the files of one of the two datasets are called, and their labels; `published` is torchvision's class."""

    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    names: str
    labels: str
    published: str


_CIFAR10 = _Layout(
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    names="label_names",
    labels="labels",
    published="CIFAR10",
)
_CIFAR100 = _Layout(
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=("train",),
    test="test",
    meta="meta",
    names="fine_label_names",
    labels="fine_labels",
    published="CIFAR100",
)


def load_cifar10(root: Path, roots: DataRoots) -> Source:
    """CIFAR-10 below `root`. Raises DataError with what to do where it is missing or damaged."""
    return _load(_CIFAR10, root, roots)


def load_cifar100(root: Path, roots: DataRoots) -> Source:
    """CIFAR-100 with its 100 fine classes, likewise."""
    return _load(_CIFAR100, root, roots)


def _load(layout: _Layout, root: Path, roots: DataRoots) -> Source:
    folder = root if root.name == layout.folder else root / layout.folder
    if not folder.is_dir():
        raise DataError(
            f"no {layout.folder} in {root}: unpack {layout.archive} (cs.toronto.edu/~kriz/cifar.html) there"
        )
    with _readable(folder / layout.meta, layout, roots) as values:
        classes = tuple("".join(name) for name in values[layout.names])  # a TypeError for no text
    train = [_batch(folder / name, layout, len(classes), roots) for name in layout.train]
    test = Split(*_batch(folder / layout.test, layout, len(classes), roots))
    images, labels = (torch.cat(parts) for parts in zip(*train, strict=True))
    warn_of_others(folder, layout.published, roots)
    return Source(Split(images, labels), test, classes)


def _batch(path: Path, layout: _Layout, classes: int, roots: DataRoots) -> tuple[Tensor, Tensor]:
    """uint8 N 3 32 32 and classes N."""
    with _readable(path, layout, roots) as values:
        data, given, size = values["data"], values[layout.labels], path.stat().st_size
        if not isinstance(data, np.ndarray) or data.dtype.hasobject or max(data.size, len(given)) > size:
            raise ValueError(f"{size} bytes, which cannot be an array of images with their labels")
        images = np.asarray(data, dtype=np.uint8).reshape(-1, 3, 32, 32).copy()
        labels = torch.tensor([int(label) for label in given], dtype=torch.int64)
        if len(images) == 0 or labels.shape != (len(images),):
            raise ValueError(f"{len(images)} images, but labels of shape {tuple(labels.shape)}")
        if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(f"labels outside 0..{classes - 1}")
    return torch.from_numpy(images), labels


@contextlib.contextmanager
def _readable(path: Path, layout: _Layout, roots: DataRoots) -> Iterator[dict[str, Any]]:
    """What a file holds; whatever is wrong with it, also within, is told as a DataError that names the file."""
    try:
        with roots.open(path) as file:
            values = _ArraysOnly(file, encoding="latin1").load()
        if not isinstance(values, dict):
            raise ValueError(f"it holds {type(values).__name__}, not a dict")
        yield values
    except DataError:  # it may not be opened
        raise
    except Exception as error:  # a damaged pickle may raise anything
        what = f"{type(error).__name__}: {error}"[:_LONGEST_CAUSE]
        raise DataError(f"cannot read {path} ({what}); unpack {layout.archive} again") from error
