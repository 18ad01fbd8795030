"""From the name in the spec to the dataset."""

from collections.abc import Callable
from pathlib import Path

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError
from cbam_core.spec import DataSpec
from workers.data.datasets.base import Dataset
from workers.data.datasets.cifar import load_cifar10, load_cifar100
from workers.data.datasets.cluttered_digits import load_cluttered_digits
from workers.data.datasets.cluttered_mnist import load_cluttered_mnist
from workers.data.datasets.digits import load_digits
from workers.data.datasets.download import download
from workers.data.datasets.fashion_mnist import load_fashion_mnist
from workers.data.datasets.imagefolder import load_imagefolder, open_imagefolder
from workers.data.datasets.mnist5k import load_mnist5k
from workers.data.datasets.source import Source
from workers.data.datasets.synthetic import load_synthetic
from workers.data.datasets.table import load_table

MADE: dict[str, Callable[[int], Source]] = {
    "digits": lambda _size: load_digits(),
    "cluttered_digits": load_cluttered_digits,
    "mnist5k": lambda _size: load_mnist5k(),
    "cluttered_mnist": lambda _size: load_cluttered_mnist(),
    "synthetic": load_synthetic,
}
"""Datasets that need no folder, from the image size."""

READ: dict[str, Callable[[Path, DataRoots], Source]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
    "fashion_mnist": load_fashion_mnist,
}
"""Published datasets, from their root, and what may be opened at all."""


def load_dataset(
    data: DataSpec, data_roots: tuple[str, ...] = (), *, allow_download: bool = False, with_test: bool = True
) -> Dataset:
    """The dataset that `data` names. Raises DataError, with what to do, where it is missing, damaged or not allowed.

    Without `with_test`, a test folder beside the val folder is not read.
    """
    if data.download and not allow_download:
        raise DataError("the operator allows no downloads (CBAM_ALLOW_DOWNLOAD); put the dataset into its root by hand")
    if data.root is None:
        return MADE[data.dataset](data.image_size).divide(data)
    roots = DataRoots.of(data_roots)
    root = allowed_root(data.root, roots, or_file=data.dataset == "table")
    if data.dataset == "table":
        return load_table(root, data, roots=roots, with_test=with_test)
    if data.dataset == "imagefolder":
        return (open_imagefolder if data.workers_per_rank else load_imagefolder)(
            root, data, roots=roots, with_test=with_test
        )
    return _read(data, root, roots).divide(data)


def _read(data: DataSpec, root: Path, roots: DataRoots) -> Source:
    read = READ[data.dataset]
    try:
        return read(root, roots)
    except DataError:
        if not data.download:
            raise
    download(data.dataset, root, roots)
    return read(root, roots)


def allowed_root(root: str, roots: DataRoots, *, or_file: bool = False) -> Path:
    """`root`, a folder, with its symbolic links resolved. Raises DataError where it lies below none of `roots`."""
    resolved = Path(root).resolve()
    if not roots.hold(resolved):
        raise DataError(f"{root} is not below a folder that the operator allows for data (CBAM_DATA_ROOTS)")
    if not resolved.is_dir() and not (or_file and resolved.is_file()):
        raise DataError(f"{root} is not a folder on this machine; is the data there, and mounted on every node?")
    return resolved
