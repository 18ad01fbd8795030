"""Fashion-MNIST as Zalando ships it (Xiao et al. 2017): four gzipped idx files, 28×28, 10 classes."""

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from workers.data.datasets.base import Split
from workers.data.datasets.checksums import warn_of_others
from workers.data.datasets.source import Source

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
MOST_BYTES = 2**30
"""Of one file, unpacked: the largest set in this format, EMNIST's, has 547 million."""
_HELP = "put the four files of github.com/zalandoresearch/fashion-mnist there"


def load_fashion_mnist(root: Path, roots: DataRoots) -> Source:
    """Fashion-MNIST below `root` (or where torchvision puts it). Raises DataError with what to do."""
    folder = next((place for place in (root, root / "FashionMNIST" / "raw") if any(place.glob("*-ubyte*"))), None)
    if folder is None:
        raise DataError(f"no Fashion-MNIST in {root}: {_HELP}")
    train, test = (_split(folder, name, roots) for name in ("train", "t10k"))
    warn_of_others(folder, "FashionMNIST", roots)
    return Source(train, test, CLASSES)


def _split(folder: Path, name: str, roots: DataRoots) -> Split:
    images = read_idx(folder / f"{name}-images-idx3-ubyte", roots)
    labels = read_idx(folder / f"{name}-labels-idx1-ubyte", roots).long()
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{name}-images-idx3-ubyte in {folder} has the shape {tuple(images.shape)} and {name}-labels-idx1-ubyte "
            f"{tuple(labels.shape)}: no images with a label each; {_HELP}"
        )
    if int(labels.max()) >= len(CLASSES):
        raise DataError(f"{name}-labels-idx1-ubyte in {folder} has labels outside 0..{len(CLASSES) - 1}; {_HELP}")
    return Split(images.unsqueeze(1), labels)


def read_idx(path: Path, roots: DataRoots) -> Tensor:
    """The uint8 array in an idx file, gzipped (.gz beside the name) or not. Raises DataError where it is damaged."""
    packed = path.with_name(path.name + ".gz")
    try:
        with roots.open(packed if packed.exists() else path) as file:
            data = _read(gzip.GzipFile(fileobj=file) if packed.exists() else file)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path.name} in {path.parent}: {error}; {_HELP}") from error
    dimensions = data[3] if len(data) > 3 and data[:3] == b"\x00\x00\x08" else 0
    shape = tuple(np.frombuffer(data, ">u4", dimensions, 4).tolist()) if len(data) >= 4 + 4 * dimensions else ()
    expected = 4 + 4 * dimensions + math.prod(shape) if shape and all(shape) else None
    if len(data) != expected:
        said = f"{expected} by its header" if expected else "its header is that of no idx file"
        raise DataError(f"{path.name} in {path.parent} is damaged ({len(data)} bytes; {said}); {_HELP}")
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy())


def _read(file: BinaryIO | gzip.GzipFile) -> bytes:
    """All of it, unless that is more than MOST_BYTES, to which a few kilobytes may be unpacked."""
    with file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise OSError(f"it holds more than {MOST_BYTES:,} bytes")
    return data
