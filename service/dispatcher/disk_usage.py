"""How much experiments keep on shared storage: measured in a thread of its own, and what a quota makes of it."""

import logging
import os
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from service.dispatcher.file_store import FileStore, Measured, Unmeasured
from service.dispatcher.storage_marker import is_mounted
from service.domain.values import human_bytes, utc_now
from workers.protocol.storage import ExperimentFolder

log = logging.getLogger(__name__)
LOOK_SECONDS = 1.0
RETRY_SECONDS = 30.0
QUOTA_SECONDS = 5.0  # between two looks at what owners keep


class DiskMeter:
    """Measures the files of experiments whose size is not known, and of live ones now and then."""

    def __init__(self, file_store: FileStore, *, storage: Path, clock: Callable[[], float]) -> None:
        self.store = file_store
        self.storage = storage
        self.clock = clock
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="measure")
        self.under_way: Future[list[Measured]] | None = None
        self.not_before = 0.0

    def tick(self) -> None:
        """Take what the thread has found, and give it what is left. Returns at once."""
        if self.under_way is not None:
            if not self.under_way.done():
                return
            done, self.under_way = self.under_way, None
            self.store.note_sizes(done.result())
        if self.clock() < self.not_before:
            return
        self.not_before = self.clock() + LOOK_SECONDS
        if (due := self.store.unmeasured()) and (marker := self.store.storage_marker()) is not None:
            self.under_way = self.pool.submit(self._measure_all, due, marker)

    def close(self) -> None:
        """Stop after the experiments in hand."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _measure_all(self, due: list[Unmeasured], marker: str) -> list[Measured]:
        """Those that could be measured. Storage that is not mounted must not look like experiments without files."""
        found: list[Measured] = []
        failed: list[tuple[str, OSError]] = []
        for one in due:
            folder = ExperimentFolder(self.storage, one.id)
            try:
                checkpoints = size_of(folder.checkpoints)
                found.append(Measured(one, size_of(folder.path), checkpoints, utc_now()))
            except OSError as error:
                failed.append((one.id, error))
        if failed:
            log.warning("the files of %d experiments cannot be measured, trying again; %s: %s", len(failed), *failed[0])
            self.not_before = self.clock() + RETRY_SECONDS
        return found if is_mounted(self.storage, marker) else []


class DiskQuota:
    """Which owners of the queue keep so much that nothing new of theirs is started."""

    def __init__(self, file_store: FileStore, quota: int | None, *, clock: Callable[[], float]) -> None:
        self.store = file_store
        self.quota = quota
        self.clock = clock
        self.looked_at = float("-inf")
        self.used: dict[str, int] = {}

    def exceeded(self, owners: Collection[str]) -> dict[str, str]:
        """Which of these, and why; as it was a few seconds ago at most."""
        if self.quota is None:
            return {}
        if self.clock() - self.looked_at >= QUOTA_SECONDS or not self.used.keys() >= set(owners):
            self.looked_at, self.used = self.clock(), self.store.usage(owners)
        return {
            owner: f"waits for room: your files come to {human_bytes(used)}, of {human_bytes(self.quota)} allowed"
            for owner, used in self.used.items()
            if used >= self.quota
        }


def size_of(path: Path) -> int:
    """Bytes of all files below a folder; 0 where it is not there. Links are not followed.

    What goes meanwhile counts as gone. Raises OSError where storage does not answer.
    """
    total, folders = 0, [path]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
                    else:
                        total += _bytes_of(entry)
        except FileNotFoundError:
            continue
    return total


def _bytes_of(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0
