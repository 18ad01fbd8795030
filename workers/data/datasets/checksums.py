"""Whether the files of a dataset are those that its authors published, by the checksums that torchvision knows."""

import hashlib
import logging
from functools import lru_cache
from pathlib import Path

from cbam_core.data_roots import DataRoots

logger = logging.getLogger(__name__)


def warn_of_others(folder: Path, theirs: str, roots: DataRoots) -> None:
    """Warn, in the log, of files in `folder` that differ from those of `theirs`, a class of torchvision's.

    No error: corrected labels, or a few images of one's own, come in the same files. Every reader refuses what is not
    whole; only a checksum knows of single bytes that have changed, or of another dataset by the same names.
    """
    others = [
        name
        for name, md5 in _checksums(theirs).items()
        if (folder / name).exists() and _md5_of(folder / name, roots) != md5
    ]
    if others:
        logger.warning(
            "%s of %s: not as published, by MD5. If you did not make them yourself, they are damaged, or another "
            "dataset's: put them there again",
            ", ".join(others),
            folder,
        )


def _checksums(theirs: str) -> dict[str, str]:
    """The MD5 of every file that torchvision's class `theirs` has one for."""
    from torchvision import datasets

    published = getattr(datasets, theirs)
    if hasattr(published, "resources"):
        return dict(published.resources)
    return dict([*published.train_list, *published.test_list, (published.meta["filename"], published.meta["md5"])])


def _md5_of(path: Path, roots: DataRoots) -> str:
    stat = path.stat()
    return _md5(path, stat.st_size, stat.st_mtime_ns, roots)


@lru_cache(maxsize=64)
def _md5(path: Path, _size: int, _mtime_ns: int, roots: DataRoots) -> str:
    """Read once for all trials of a warm worker, and anew where the file is another by its size and time."""
    with roots.open(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
