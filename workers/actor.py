"""TrainWorker: the Ray actor that runs one rank. It trains in one thread and answers in others.

Imports no torch, because the dispatcher imports it: torch comes with `load_training`, in the actor.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any

from cbam_core.errors import Superseded
from workers.preload import load_ahead, load_training
from workers.protocol.assignment import Assignment
from workers.protocol.code_version import code_fingerprint
from workers.protocol.fence import require_open
from workers.protocol.outcome import Outcome, classify, read_outcome
from workers.protocol.progress import Progress
from workers.protocol.stop import StopMode, StopSignal
from workers.protocol.storage import make_folder
from workers.runtime.memory_check import Footprint
from workers.runtime.watchdog import dump_stacks

logger = logging.getLogger(__name__)
LOOKS = 20  # in the time after which nobody is waited for any more


class TrainWorker:
    """Runs one assignment at a time. Every method but the constructor and `news` answers within milliseconds."""

    def __init__(self, *, ahead: bool = False, patience_seconds: float | None = None) -> None:
        """With `ahead` it loads all that a training needs from its beginning to its end: its first one may be far.

        One that idles and is asked by nobody for `patience_seconds` has no dispatcher any more, and ends its process.
        """
        self._code, self._ahead = code_fingerprint(), ahead
        self._looks_left, self._leaving = LOOKS, False
        self._changed = threading.Condition(threading.Lock())
        self._told: tuple[object, ...] = ()  # the last headline that went out as news
        self._assignment: Assignment | None = None
        self._thread: threading.Thread | None = None
        self._stop = StopSignal()
        self._progress = Progress()
        self._outcome: Outcome | None = None
        self._footprint = Footprint()
        self._fit = True
        self._meeting_place: socket.socket | None = None
        self._importing = threading.Thread(target=self._import_training, name="import-training", daemon=True)
        self._importing.start()
        if patience_seconds is not None:
            threading.Thread(target=self._watch, args=(patience_seconds / LOOKS,), name="watch", daemon=True).start()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGUSR1, self._leave)

    def place(self) -> tuple[str, int, list[str]]:
        """This node's address, a port kept for rank 0 (where it lets the gang meet), this worker's GPUs."""
        import ray

        if self._meeting_place is not None:
            self._meeting_place.close()
        self._meeting_place = kept_port()
        gpus = [str(gpu) for gpu in ray.get_gpu_ids()]
        return ray.util.get_node_ip_address(), self._meeting_place.getsockname()[1], gpus

    def start(self, assignment: Mapping[str, Any]) -> None:
        """Begin an assignment. The same token again changes nothing. Raises RuntimeError while another one trains,
        and from a worker that goes.
        """
        wanted = Assignment.from_dict(assignment)
        with self._changed:
            if self._leaving:
                raise RuntimeError("this worker had been asked by nobody for long, and goes")
            if self._assignment is not None and self._assignment.token == wanted.token:
                return
            if self._thread is not None and self._outcome is not None:
                self._thread.join()  # it has said that it has ended, and does so now
            if self._trains():
                raise RuntimeError(
                    f"this worker still trains under token {self._assignment and self._assignment.token}"
                )
            if wanted.node_gpus:
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(wanted.node_gpus)  # read when CUDA is first used
            self._assignment, self._outcome = wanted, None
            self._stop, self._progress = StopSignal(), Progress(phase="starting", heartbeat=time.time())
            self._thread = threading.Thread(target=self._run, args=(wanted, self._stop), name="training", daemon=True)
            self._thread.start()
            self._changed.notify_all()

    def news(self, wait_seconds: float) -> dict[str, Any]:
        """What `poll` says, once an assignment has been taken, has made its first step or has ended since the last
        time that somebody was told; after `wait_seconds` in any case.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._headline() != self._told, wait_seconds)
            self._told = self._headline()
            return self.poll()

    def poll(self) -> dict[str, Any]:
        """How far the assignment is. `outcome` is there once this rank has ended; result.json is the record.

        `fit` says whether the worker may be given another assignment after this one, and `code` which version of the
        training it runs. `news` says whether it can be asked for them: Ray ends a process that is asked in a
        concurrency group which its actor was made without, as those of earlier versions were; then calls run in the
        main thread.
        """
        self._looks_left = LOOKS
        outcome, assignment = self._outcome, self._assignment
        return {
            "experiment_id": assignment.experiment_id if assignment else None,
            "attempt": assignment.attempt if assignment else None,
            "progress": self._progress.to_dict(),
            "outcome": outcome.to_dict() if outcome else None,
            "token": assignment.token if assignment else None,
            "fit": self._fit,
            "code": self._code,
            "news": threading.current_thread() is not threading.main_thread(),
            "pid": os.getpid(),
        }

    def stop(self, mode: StopMode) -> None:
        """Ask the whole gang, through this rank, to end at the next common step. "pause" writes a checkpoint there."""
        self._stop.request(mode)

    def dump_stacks(self) -> None:
        """Write what every thread is doing into the rank's log: for a gang that hangs."""
        if self._assignment is None:
            return
        path = self._assignment.folder.attempt(self._assignment.attempt).log(self._assignment.rank)
        with path.open("a", encoding="utf-8") as file:
            dump_stacks(file)

    def _leave(self, _signum: int, _frame: FrameType | None) -> None:
        """SIGUSR1, again and again: this node is about to stop. A training ends with a checkpoint; who idles goes."""
        if self._trains():
            self._stop.request("pause")
        elif self._is_recorded():
            os._exit(0)

    def _watch(self, seconds: float) -> None:
        """Look every so many `seconds`. Looks are counted, as no time says how long this process itself was stopped."""
        while not self._leaving:
            time.sleep(seconds)
            with self._changed:
                self._looks_left = LOOKS if self._trains() else self._looks_left - 1
                self._leaving = self._looks_left <= 0 and self._is_recorded()
        logger.warning("nobody has asked for this worker for long: it goes")
        try:
            give_back_place()
        finally:
            os._exit(0)

    def _trains(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _is_recorded(self) -> bool:
        """Whether what it ran last is on record: whoever goes before rank 0 has written it looks like one that died.

        Of a deleted experiment there is nothing to wait for.
        """
        if self._assignment is None:
            return True
        try:
            attempt = self._assignment.folder.attempt(self._assignment.attempt)
            return not attempt.path.exists() or read_outcome(attempt) is not None
        except (OSError, ValueError, TypeError):
            return False

    def _run(self, assignment: Assignment, stop: StopSignal) -> None:
        began = False
        try:
            self._importing.join()  # an import that fails in another thread leaves this one half a module
            from workers.attempt import run

            began = True
            outcome = run(assignment, stop=stop, report=self._remember)
        except BaseException as error:  # an import that fails, a disk that is full: the dispatcher must learn of it
            outcome = Outcome(
                "failed",
                classify(error),
                "".join(traceback.format_exception(error)),
                rank=assignment.rank,
                attempt=assignment.attempt,
                token=assignment.token,
            )
            with contextlib.suppress(OSError, Superseded):  # then the answer to a poll is the only record
                folder = assignment.folder.attempt(assignment.attempt)
                if not began:  # else it was made, and where it is gone the experiment is deleted
                    require_open(assignment.folder)
                    make_folder(folder.path)
                outcome = outcome.record(folder)
        self._fit = outcome.outcome == "succeeded" and self._footprint.is_back()
        with self._changed:
            self._outcome = outcome
            self._changed.notify_all()

    def _import_training(self) -> None:
        """Load torch while the gang is still being put together. An error here comes again, and is told, in `start`."""
        try:
            load_training()
            if self._ahead and self._assignment is None:
                load_ahead()
        except Exception:
            self._fit = False
            logger.exception("the training code cannot be imported")

    def _remember(self, progress: Progress) -> None:
        before, self._progress = self._progress, progress
        if progress.step and not before.step:
            with self._changed:
                self._changed.notify_all()

    def _headline(self) -> tuple[object, ...]:
        """What is news when it changes."""
        return self._assignment and self._assignment.token, self._progress.step > 0, self._outcome is not None


def kept_port() -> socket.socket:
    """A socket whose port nobody is given while it is open, and where this process can listen nevertheless."""
    keeper = socket.socket()
    keeper.bind(("", 0))
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a listener with the same option may stand beside it
    return keeper


def give_back_place() -> None:
    """Free this actor's reservation, which outlives it and ends it."""
    import ray

    if ray.is_initialized() and (group := ray.util.get_current_placement_group()):
        ray.util.remove_placement_group(group)
