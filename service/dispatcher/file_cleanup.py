"""Takes away the files of deleted experiments, in a thread of its own: a network disk takes its time.

The note of a deletion is written in the transaction that takes the rows, and goes only after the files: whoever dies
in between, the next dispatcher finds it. An experiment whose gang is still seen waits, for a worker could write again.
"""

import logging
import shutil
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from service.dispatcher.store import DispatcherStore
from workers.protocol.storage import ExperimentFolder

log = logging.getLogger(__name__)
RETRY_SECONDS = 30.0
LOOK_SECONDS = 1.0


class FileCleanup:
    """Erases what is noted as deleted."""

    def __init__(self, dispatcher_store: DispatcherStore, *, storage: Path, clock: Callable[[], float]) -> None:
        self.store = dispatcher_store
        self.storage = storage
        self.clock = clock
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="erase")
        self.under_way: Future[list[str]] | None = None
        self.not_before = 0.0

    def tick(self, alive: Collection[str]) -> None:
        """Take what the thread has done, and give it what is left; `alive` are experiments that still have a gang."""
        if self.under_way is not None:
            if not self.under_way.done():
                return
            done, self.under_way = self.under_way.result(), None
            for experiment_id in done:
                self.store.close_deletion(experiment_id)
        if self.clock() < self.not_before:
            return
        self.not_before = self.clock() + LOOK_SECONDS
        if due := [one for one in self.store.deletions() if one not in alive]:
            self.under_way = self.pool.submit(self._erase_all, due)

    def close(self) -> None:
        """Stop after the experiment in hand."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _erase_all(self, experiment_ids: list[str]) -> list[str]:
        """The experiments of which nothing is left."""
        erased = []
        for experiment_id in experiment_ids:
            try:
                erase(ExperimentFolder(self.storage, experiment_id))
            except OSError as error:
                log.warning("the files of %s cannot be deleted, trying again: %s", experiment_id, error)
                self.not_before = self.clock() + RETRY_SECONDS
            else:
                log.info("%s is deleted, with all its files", experiment_id)
                erased.append(experiment_id)
        return erased


def erase(folder: ExperimentFolder) -> None:
    """Delete the folder; one that is not there is no error. Raises OSError where something of it stays.

    It loses its name first: a worker that still writes sees at once that its fence is gone, and cannot put a file
    into what is being deleted.
    """
    going = folder.path.with_name(f".{folder.experiment_id}.deleted")
    _remove(going)  # what an earlier try left
    if folder.path.is_dir():
        folder.path.rename(going)
        _remove(going)
    else:
        _remove(folder.path)


def _remove(path: Path) -> None:
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        if path.exists():  # something in it went meanwhile: not by us
            raise
