"""Remove the files of deleted and pruned experiments, in a thread of its own: a network disk takes its time.

The note of a deletion, or of a pruning, is written in the transaction that makes it, and goes only after the files:
whoever dies in between, the next dispatcher finds it. An experiment whose gang is still seen waits, for a worker could
write again. One that is not seen, cut off from its cluster, finds the tombstone that is left before anything goes.

While storage is not mounted nothing is there, and nothing counts as removed. What a link points to is not ours: the
link goes, and nothing else.
"""

import logging
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from service.dispatcher.file_store import FileStore
from service.dispatcher.storage_marker import MARKER, is_mounted, make_marker
from service.dispatcher.store import DispatcherStore
from service.domain.pruning import PruneScope
from workers.protocol.storage import ExperimentFolder, write_atomically

log = logging.getLogger(__name__)
RETRY_SECONDS = 30.0
LOOK_SECONDS = 1.0
SWEEP_SECONDS = 24 * 3600.0  # between two looks for tombstones that are too old
TOMBSTONE_SECONDS = 30 * 24 * 3600.0  # far beyond any process that was cut off


class FileCleanup:
    """Removes what is noted as deleted or pruned."""

    def __init__(self, dispatcher_store: DispatcherStore, *, storage: Path, clock: Callable[[], float]) -> None:
        self.store = dispatcher_store
        self.file_store = FileStore(dispatcher_store.database, dispatcher_store.leadership)
        self.storage = storage
        self.clock = clock
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="erase")
        self.under_way: Future[list[tuple[str, PruneScope | None]]] | None = None
        self.marking: Future[str | None] | None = None
        self.marker: str | None = None  # once it is known
        self.not_before = 0.0
        self.sweep_at = float("-inf")

    def mark_storage(self) -> None:
        """See to the marker by which storage is known. To be called before the first experiment of a service starts."""
        if self.marker is not None:
            return
        if self.marking is None:
            if self.clock() < self.not_before:
                return
            if (known := self.file_store.storage_marker()) is not None:
                self.marker = known
                return
            may_be_empty = not self.file_store.has_stored()
            self.marking = self.pool.submit(make_marker, self.storage, may_be_empty=may_be_empty)
        elif self.marking.done():
            made, self.marking = self.marking, None
            if (marker := made.result()) is None:
                self.not_before = self.clock() + RETRY_SECONDS
                return
            self.file_store.note_storage_marker(marker)
            self.marker = self.file_store.storage_marker()

    def tick(self, alive: Collection[str]) -> None:
        """Take what the thread has done, and give it what is left; `alive` are experiments that still have a gang."""
        if self.under_way is not None:
            if not self.under_way.done():
                return
            removed, self.under_way = self.under_way, None
            for experiment_id, scope in removed.result():
                if scope is None:
                    self.store.close_deletion(experiment_id)
                else:
                    self.file_store.close_pruning(experiment_id, scope)
        self.mark_storage()
        if self.marker is None or self.clock() < self.not_before:
            return
        self.not_before = self.clock() + LOOK_SECONDS
        wanted: dict[str, PruneScope | None] = {**self.file_store.prunings(), **dict.fromkeys(self.store.deletions())}
        if due := {name: scope for name, scope in wanted.items() if name not in alive}:
            self.under_way = self.pool.submit(self._remove_all, due, self.marker)

    def close(self) -> None:
        """Stop after the experiment in hand."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _remove_all(self, due: Mapping[str, PruneScope | None], marker: str) -> list[tuple[str, PruneScope | None]]:
        """Remove checkpoints, all files, or (None) what was deleted; the experiments of which that is done."""
        done: list[tuple[str, PruneScope | None]] = []
        for experiment_id, scope in due.items():
            if not self._is_mounted(marker, waiting=len(due) - len(done)):
                return done
            folder = ExperimentFolder(self.storage, experiment_id)
            try:
                (erase_checkpoints if scope is PruneScope.CHECKPOINTS else erase)(folder)
            except OSError as error:
                log.warning("the files of %s cannot be removed, trying again: %s", experiment_id, error)
                self.not_before = self.clock() + RETRY_SECONDS
                continue
            if not self._is_mounted(marker, waiting=len(due) - len(done)):  # it may have gone meanwhile
                return done
            log.info("%s is %s", experiment_id, f"pruned: {scope}" if scope else "deleted, with all its files")
            done.append((experiment_id, scope))
        if self.clock() >= self.sweep_at:
            self.sweep_at = self.clock() + SWEEP_SECONDS
            sweep(self.storage, older_than=time.time() - TOMBSTONE_SECONDS)
        return done

    def _is_mounted(self, marker: str, *, waiting: int) -> bool:
        if is_mounted(self.storage, marker):
            return True
        log.warning(
            "%s is not mounted, or is not the storage of this service, whose file %s holds %s: the files of %d "
            "experiments that were deleted or pruned wait for it",
            *(self.storage, MARKER, marker, waiting),
        )
        self.not_before = self.clock() + RETRY_SECONDS
        return False


def erase(folder: ExperimentFolder) -> None:
    """Remove the folder; one that is not there is no error. Raises OSError where something of it stays.

    A tombstone comes first, and then the folder loses its name: a worker that still writes sees that at once, and
    cannot put a file into what is being removed; one that has not begun does not begin. Of a link the link is removed,
    and nothing of what it points to.
    """
    write_atomically(folder.tombstone, "")
    going = folder.path.with_name(f".{folder.experiment_id}.deleted")
    _remove(going)  # what an earlier try left
    if folder.path.is_dir() and not folder.path.is_symlink():
        folder.path.rename(going)
        _remove(going)
    else:
        _remove(folder.path)


def erase_checkpoints(folder: ExperimentFolder) -> None:
    """Remove the checkpoints alone, in the same way. Where the folder itself is a link there are none of ours."""
    write_atomically(folder.tombstone, "")
    if folder.path.is_symlink():
        log.warning("%s is a link to %s: no checkpoints are removed there", folder.path, folder.path.readlink())
        return
    going = folder.path / ".checkpoints.pruned"
    _remove(going)
    if folder.checkpoints.is_dir() and not folder.checkpoints.is_symlink():
        folder.checkpoints.rename(going)
        _remove(going)
    else:
        _remove(folder.checkpoints)


def sweep(storage: Path, *, older_than: float) -> None:
    """Remove tombstones that were left before a time, in unix seconds: nothing is left that could ask for them."""
    for path in (storage / "experiments").glob(".*.closed"):
        try:
            if path.stat().st_mtime < older_than:
                path.unlink()
        except OSError as error:
            log.warning("%s cannot be removed: %s", path, error)


def _remove(path: Path) -> None:
    """Remove a folder with all that is in it, or a link and nothing of what it points to."""
    if path.is_symlink():
        log.warning("%s is a link to %s: the link is removed, and nothing there", path, path.readlink())
    try:
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path)
    except FileNotFoundError:
        if path.exists():  # something in it went meanwhile: not by us
            raise
