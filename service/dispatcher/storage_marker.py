"""The file by which storage is known: while its file system is not mounted, nothing of it may be taken for removed.

The dispatcher writes it at the root of storage at the first start, and its content into the database. A mount point
without its file system is a folder without it.
"""

import logging
import secrets
from pathlib import Path

from workers.protocol.storage import write_once

log = logging.getLogger(__name__)
MARKER = ".cbam-storage"
LONGEST = 64  # characters of it that are read


def read_marker(storage: Path) -> str | None:
    """What the marker holds; None where there is none, or storage cannot be read."""
    try:
        with (storage / MARKER).open(encoding="utf-8", errors="replace") as file:
            return file.readline(LONGEST).strip() or None
    except OSError:
        return None


def is_mounted(storage: Path, marker: str) -> bool:
    """Whether this is the storage of that marker, now."""
    return read_marker(storage) == marker


def make_marker(storage: Path, *, may_be_empty: bool) -> str | None:
    """The marker of this storage, made where it has none; None where that may be another folder, or cannot be written.

    Of a service that has stored files, storage without any experiment is taken for one that is not mounted.
    """
    if (found := read_marker(storage)) is not None:
        return found
    try:
        if not may_be_empty and not _has_experiments(storage):
            log.warning("%s holds no experiments, and should: is it mounted? No files are removed meanwhile", storage)
            return None
        write_once(storage / MARKER, f"{secrets.token_hex(16)}\n")
    except OSError as error:
        log.warning("%s cannot be marked as the storage of this service, trying again: %s", storage, error)
        return None
    return read_marker(storage)


def _has_experiments(storage: Path) -> bool:
    folder = storage / "experiments"
    return folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())
