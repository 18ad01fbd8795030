"""Datasets from where their authors publish them, by torchvision, which knows the addresses and the checksums."""

import contextlib
import fcntl
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cbam_core.data_roots import DataRoots
from cbam_core.errors import DataError

_CLASSES = {"cifar10": "CIFAR10", "cifar100": "CIFAR100", "fashion_mnist": "FashionMNIST"}
_FAILURES = (OSError, RuntimeError, EOFError, tarfile.TarError, zlib.error)  # urllib's and torchvision's among them


def download(dataset: str, root: Path, roots: DataRoots) -> None:
    """Have what is missing of `dataset` below `root`; by one process at a time, of all that see the folder.

    Raises DataError where it cannot be fetched, is not what was published, or would be written through a link to
    outside of `roots`.
    """
    from torchvision import datasets

    with _alone_in(root):
        if (link := roots.first_link_out(root, dataset)) is not None:
            roots.check(link)
        try:
            if dataset == "fashion_mnist":
                _pack_up(root / "FashionMNIST" / "raw", datasets.FashionMNIST.resources)
            getattr(datasets, _CLASSES[dataset])(str(root), train=False, download=True)
        except _FAILURES as error:
            raise DataError(
                f"cannot download {dataset} to {root}: {error}; put it there by hand and leave `download` out"
            ) from error


def _pack_up(folder: Path, archives: Sequence[tuple[str, str]]) -> None:
    """Remove what was unpacked: where it is there, whole or not, torchvision looks no further at the archives."""
    for name, _ in archives:
        (folder / name).with_suffix("").unlink(missing_ok=True)


@contextlib.contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    try:
        file = os.fdopen(os.open(root / ".download.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+")
    except OSError as error:
        raise DataError(f"cannot write to {root}, so nothing is downloaded there: {error}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
