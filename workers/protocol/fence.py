"""The fence: storage knows which attempt of an experiment is the newest, and no other one may write.

Before it trains, an attempt puts a file of its own beside its log; the newest attempt is the one with the highest
number that has done so. A worker that was taken for dead while it was only cut off, or stopped, finds a higher number
than its own before its next write, and ends; so it does where its own file is gone, with the whole experiment. The
file says when the attempt began, and its time of change when it was
last seen to be the newest: so one can tell afterwards that no two were alive at once. A deletion or a pruning leaves a
tombstone beside the folder: one that was cut off before it began finds that, and does not begin. Imports no torch and
no Ray.
"""

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass

from cbam_core.errors import CheckpointError, Superseded
from workers.protocol.assignment import Assignment
from workers.protocol.storage import ExperimentFolder, write_once

EVERY_SECONDS = 1.0  # a look between writes: a shared file system may take milliseconds for it


@dataclass(frozen=True)
class Hold:
    """When an attempt had the fence, in unix seconds: from its beginning to the last time it was seen as the newest."""

    attempt: int
    taken_at: float
    seen_at: float


class Fence:
    """One attempt's right to write to its experiment's folder and its MLflow run."""

    def __init__(self, assignment: Assignment) -> None:
        self._folder, self._attempt = assignment.folder, assignment.attempt
        self._token, self._took_it = assignment.token, assignment.rank == 0  # before any other look at the fence
        self._path = self._folder.attempt(self._attempt).fence
        self._checked_at = float("-inf")

    def take(self) -> None:
        """Become the newest attempt. Raises Superseded where a later one, or another of this number, has begun, or the
        experiment is deleted or pruned.
        """
        require_open(self._folder)
        mine = json.dumps({"token": self._token, "taken_at": time.time()})
        if not write_once(self._path, mine) and json.loads(self._path.read_text("utf-8"))["token"] != self._token:
            raise Superseded(f"attempt {self._attempt} of this experiment has been begun by somebody else")
        self.check()

    def check(self) -> None:
        """To be called before a write. Raises Superseded where a later attempt has begun, or the experiment is deleted
        or pruned; CheckpointError where storage cannot say so.

        Rank 0 has put the file there; the other ranks, which may begin before it, must have seen it first.
        """
        try:
            require_open(self._folder)
            newest, is_there = newest_attempt(self._folder), self._is_there()
        except OSError as error:
            raise CheckpointError(f"storage does not say which attempt is the newest: {error}") from error
        if newest > self._attempt:
            raise Superseded(f"attempt {newest} of this experiment has begun, so attempt {self._attempt} ends")
        if self._took_it and not is_there:
            raise Superseded(f"the fence of attempt {self._attempt} is gone: the experiment has been deleted")
        self._took_it |= is_there
        self._checked_at = time.monotonic()
        with suppress(OSError):
            os.utime(self._path)

    def check_now_and_then(self) -> None:
        """The same once a second, for what is done at every step. Storage that does not answer supersedes nobody."""
        if time.monotonic() - self._checked_at >= EVERY_SECONDS:
            with suppress(CheckpointError):
                self.check()

    def _is_there(self) -> bool:
        try:
            self._path.stat()
        except FileNotFoundError:
            return False
        return True


def require_open(folder: ExperimentFolder) -> None:
    """Raise Superseded where the experiment is deleted, or its files are pruned: nothing may be added to them.

    Raises OSError where storage does not answer.
    """
    try:
        folder.tombstone.stat()
    except FileNotFoundError:
        return
    raise Superseded("the experiment has been deleted, or its files pruned: no attempt of it may go on")


def reopen(folder: ExperimentFolder) -> None:
    """Remove the tombstone of an experiment that is launched: its row is back from a backup. Raises OSError."""
    folder.tombstone.unlink(missing_ok=True)


def newest_attempt(folder: ExperimentFolder) -> int:
    """The highest attempt that has taken the fence; 0 where none has."""
    numbers = folder.attempt_numbers()
    return next((number for number in sorted(numbers, reverse=True) if folder.attempt(number).fence.exists()), 0)


def holds(folder: ExperimentFolder) -> list[Hold]:
    """Who had the fence when, by attempt: each must have ended before the next one began."""
    paths = [(number, folder.attempt(number).fence) for number in sorted(folder.attempt_numbers())]
    return [
        Hold(number, json.loads(path.read_text("utf-8"))["taken_at"], path.stat().st_mtime)
        for number, path in paths
        if path.exists()
    ]
