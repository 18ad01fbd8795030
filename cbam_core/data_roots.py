"""What may be opened of the file system: what lies, symbolic links resolved, below the folders opened for data.

Imports no torch: the server looks at a submission with it, and every reader of a dataset opens its files through it.
"""

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Self

from cbam_core.errors import DataError
from cbam_core.image_folders.names import is_ignored

PARTS = {
    "imagefolder": ("train", "val", "test"),
    "cifar10": ("cifar-10-python.tar.gz", "cifar-10-batches-py"),
    "cifar100": ("cifar-100-python.tar.gz", "cifar-100-python"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
}
"""What a dataset's root holds, by the dataset's name."""
_MOST_SEEN = 10_000
"""So many entries of a folder are looked at before anything is read: an ImageNet has 1,000 classes."""


@dataclass(frozen=True)
class DataRoots:
    """The folders that the operator opens for data, their symbolic links resolved."""

    folders: tuple[str, ...]

    @classmethod
    def of(cls, folders: Iterable[str | Path]) -> Self:
        """These, as they lie now."""
        return cls(tuple(os.path.realpath(folder) for folder in folders))

    def hold(self, path: str | Path) -> bool:
        """Whether `path` lies below one of them, its own symbolic links resolved."""
        return self._hold(os.path.realpath(path))

    def check(self, path: str | Path) -> None:
        """Raise DataError, with its name, for what leads out of them."""
        if not self.hold(path):
            raise self._refusal(path)

    def open(self, path: str | Path) -> BufferedReader:
        """`path`, to read. Raises DataError where it leads out of them or is no plain file, and OSError.

        It is opened first and asked afterwards where it lies, which the kernel knows: so no link that is put there
        between the two can lead elsewhere, and no folder on the way is looked at again for every image. A named pipe
        is opened without waiting for who writes to it.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not self._hold(_place_of(descriptor, path)):
                raise self._refusal(path)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DataError(f"{path} is no plain file; delete it, or put the file itself there")
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise

    def shows(self, path: str | Path) -> bool:
        """Whether the folder opened for data above `path` is there on this machine with anything in it.

        A server in a container of its own may have no more than the empty place where the workers' disk is mounted.
        """
        resolved = os.path.realpath(path)
        for folder in self.folders:
            if type(self)((folder,))._hold(resolved):
                with suppress(OSError), os.scandir(folder) as entries:
                    return next(entries, None) is not None
        return False

    def first_link_out(self, root: Path, dataset: str) -> Path | None:
        """The first link in `root`, two levels deep, that leads out and that reading `dataset` would follow.

        Only links are resolved. What cannot be seen from this machine, or lies deeper, is the reader's to refuse.
        """
        for part in (root, *(root / name for name in PARTS.get(dataset, ()))):
            if part.is_symlink() and not self.hold(part):
                return part
            for link in _links(part):
                if part == root and not (dataset == "fashion_mnist" and "-ubyte" in link.name):
                    continue  # who knows what else lies there
                if dataset == "imagefolder" and is_ignored(link.name):
                    continue
                if not self.hold(link):
                    return link
        return None

    def _hold(self, resolved: str) -> bool:
        return any(resolved == folder or resolved.startswith(folder.rstrip("/") + "/") for folder in self.folders)

    def _refusal(self, path: str | Path) -> DataError:
        return DataError(
            f"{path} is a link that leads out of the folders that the operator allows for data (CBAM_DATA_ROOTS); "
            "put what it points to below one of them"
        )


ANYWHERE = DataRoots(("/",))
"""For who is the operator: a training that is run by hand."""


def _place_of(descriptor: int, path: str | Path) -> str:
    """Where the open file lies."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:  # no Linux, or /proc is not mounted
        return os.path.realpath(path)


def _links(folder: Path) -> list[Path]:
    """The symbolic links right in `folder`, in order; none where it cannot be listed."""
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for _, entry in zip(range(_MOST_SEEN), entries, strict=False):
            if entry.is_symlink():
                found.append(Path(entry.path))
    return sorted(found)
