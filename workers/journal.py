"""What is to be told to MLflow, in order, in a file on shared storage: it waits there while MLflow is away.

Every record is one line of JSON. A second, tiny file says how many bytes of it MLflow has. So nothing is lost when the
worker is killed, the next attempt goes on where this one stopped, and a value that stands in the journal is not
written again by an attempt that repeats its step.
"""

import json
import os
import threading
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from workers.storage import write_atomically


class Journal:
    """An append-only list of records with a mark behind the last one sent. One process writes it at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lock = threading.Lock()
        self._last_step: dict[str, int] = {}
        self.is_new = not path.exists() or not path.stat().st_size
        if not self.is_new:
            self._repair()
        self._file: FileIO | None = None
        self.sent = _sent(path)

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
                records.append((json.loads(line), offset))
        return records

    def mark_sent(self, offset: int) -> None:
        """Everything before `offset` has arrived."""
        self.sent = offset  # also where the disk has no room for the mark: this process need not tell it twice
        write_atomically(_mark_of(self._path), str(offset))

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

    def _repair(self) -> None:
        """Cut off a line that a dying process left half written, and learn which values stand in the file."""
        whole = 0
        with self._path.open("rb+") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                whole += len(line)
                record = json.loads(line)
                self._last_step |= dict.fromkeys(record.get("metrics", ()), record.get("step", 0))
            file.truncate(whole)


def has_pending(path: Path) -> bool:
    """Whether the journal at `path` holds what was not sent yet: known by its mark and one line, whoever writes it."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        file.seek(_sent(path))
        return file.readline().endswith(b"\n")


def _mark_of(path: Path) -> Path:
    return path.with_suffix(".sent")


def _sent(path: Path) -> int:
    """How many bytes of it MLflow has."""
    mark = _mark_of(path)
    return int(mark.read_text()) if mark.exists() else 0
