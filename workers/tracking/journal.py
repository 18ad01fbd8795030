"""What is to be told to MLflow, in order, in a file on shared storage: it waits there while MLflow is away.

Every record is one line of JSON. A second, tiny file says how many bytes of it MLflow has. So nothing is lost when the
worker is killed, the next attempt goes on where this one stopped, and a value that stands in the journal is not
written again by an attempt that repeats its step.

A machine that dies takes with it what was not synced. So the journal is synced before its mark is written, before a
checkpoint counts, and at the end of an attempt, but not at every record; and whoever reads it takes a mark behind its
end for its end, and passes over what is no record.
"""

import json
import logging
import os
import threading
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from workers.protocol.storage import make_folder, sync_file, sync_folder, write_atomically

logger = logging.getLogger(__name__)
_BLOCK_BYTES = 4096
_MARK_DIGITS = 20
_LARGEST = 2.0**1023
_NAMED = ("params", "tags")  # records that hold something by its name
_WORDS = ("artifact", "to", "confusion", "model", "status")  # records that hold one text


class Journal:
    """An append-only list of records with a mark behind the last one sent. One process writes it at a time."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        self._path = path
        self._lock = threading.Lock()
        self._last_step: dict[str, int] = {}
        self._folder_knows = path.exists()
        self.is_new = not self._folder_knows or not self._repair()
        self._file: FileIO | None = None
        self.sent = self._mark()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; it survives this process from here on."""
        with self._lock:
            self._write(record)

    def append_metrics(self, step: int, metrics: Mapping[str, float], milliseconds: int) -> None:
        """Write the values that are new: a (name, step) that stands in the journal is not written again."""
        with self._lock:
            new = {name: value for name, value in metrics.items() if step > self._last_step.get(name, -1)}
            if new:
                self._write({"metrics": new, "step": step, "time": milliseconds})
                self._last_step |= dict.fromkeys(new, step)

    def pending(self) -> list[tuple[dict[str, Any], int]]:
        """The records not sent yet, each with the byte offset behind it."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self.sent)
            records, offset = [], self.sent
            for line in file:
                if not line.endswith(b"\n"):
                    break
                offset += len(line)
                record = read_record(line)
                if record is not None:
                    records.append((record, offset))
        if not records and offset > self.sent:  # no record would ever carry the mark over what is none
            self.mark_sent(offset)
        return records

    def mark_sent(self, offset: int) -> None:
        """Everything before `offset` has arrived. It is synced first: no mark stands behind the end of its journal."""
        self.sent = offset  # also where the disk has no room for the mark: this process need not tell it twice
        self.sync()
        write_atomically(_mark_of(self._path), str(offset), parents=False)

    def sync(self) -> None:
        """Have all records outlast the loss of this machine."""
        if not self._path.exists():
            return  # nothing was written yet, or the experiment is deleted
        sync_file(self._path)
        if not self._folder_knows:
            sync_folder(self._path.parent)
            self._folder_knows = True

    def rewind(self) -> None:
        """Nothing of it has arrived: the run that had it is gone."""
        self.mark_sent(0)

    def close(self) -> None:
        """No further record comes from this process."""
        if self._file is not None:
            self._file.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        """The whole record or, where the disk has no room for it, nothing: half of one would spoil what comes after."""
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
        before = self._file.seek(0, os.SEEK_END)
        rest = (json.dumps(record) + "\n").encode()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(before)
            raise

    def _repair(self) -> int:
        """Cut off a line that a dying process left half written, and learn which values stand in the file.

        Returns how many records there are.
        """
        whole = records = others = 0
        with self._path.open("rb+") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                record = read_record(line)
                if record is None:
                    others += 1
                    continue
                records += 1
                self._last_step |= dict.fromkeys(record.get("metrics", ()), record.get("step", 0))
            file.truncate(whole)
        if others:
            logger.warning(
                "%s: %d of its lines are no records, as after the loss of a machine; they are passed over",
                self._path,
                others,
            )
        return records

    def _mark(self) -> int:
        """How much has been sent, of what there is; a mark that says otherwise is set right before anything grows."""
        said, there = _read_mark(self._path), _sent(self._path)
        if said != there:
            logger.warning(
                "%s says %s, which is no place behind a record; sending goes on behind byte %d",
                _mark_of(self._path),
                "nothing" if said is None else said,
                there,
            )
            self.mark_sent(there)
        return there


def has_pending(path: Path) -> bool:
    """Whether the journal at `path` holds what was not sent yet: known by its mark and one line, whoever writes it."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        file.seek(_sent(path))
        return file.readline().endswith(b"\n")


def read_record(line: bytes) -> dict[str, Any] | None:
    """The record of one line; None where it is none: zeros, half a line, or what no journal writes.

    Zeros before a record are what a file system leaves of blocks that it never wrote.
    """
    try:
        value = json.loads(line.strip(b"\0\n"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _makes_sense(value) else None


def _makes_sense(record: dict[str, Any]) -> bool:
    if not all(isinstance(record[name], str) for name in _WORDS if name in record):
        return False
    if not all(isinstance(record[name], dict) for name in _NAMED if name in record):
        return False
    if "metrics" not in record:
        return any(name in record for name in (*_NAMED, *_WORDS))
    when = (record.get("step"), record.get("time"))
    metrics = record["metrics"]
    if not isinstance(metrics, dict) or not all(map(_is_number, metrics.values())):
        return False
    return all(isinstance(number, int) for number in when)


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < _LARGEST)


def _mark_of(path: Path) -> Path:
    return path.with_suffix(".sent")


def _read_mark(path: Path) -> int | None:
    """What the mark says; 0 where there is none yet, None where it says nothing."""
    try:
        text = _mark_of(path).read_bytes()
    except FileNotFoundError:
        return 0
    return int(text) if text.isdigit() and len(text) < _MARK_DIGITS else None


def _sent(path: Path) -> int:
    """How many bytes of it MLflow has: no more than there are, and up to the end of a line."""
    mark = _read_mark(path) or 0
    if not mark or not path.exists():
        return 0
    with path.open("rb") as file:
        mark = min(mark, file.seek(0, os.SEEK_END))
        while mark:
            begin = max(0, mark - _BLOCK_BYTES)
            file.seek(begin)
            newline = file.read(mark - begin).rfind(b"\n")
            if newline >= 0:
                return begin + newline + 1
            mark = begin
    return 0
