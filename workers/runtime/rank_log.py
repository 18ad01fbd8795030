"""One log file per rank: line-buffered, bounded, and its last lines at hand for the message of a failure."""

import contextlib
import logging
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from cbam_core.printable import escaped
from workers.protocol.storage import make_folder

LOGGERS = ("workers", "cbam_core", "py.warnings")
QUOTA_BYTES = 16 * 1024 * 1024
TAIL_LINES = 200
_FORMAT = "%(asctime)s %(levelname).1s %(message)s"


class RankLog(logging.Handler):
    """Writes records to a file up to a quota, then a marker; the tail is kept in memory and written at the end.

    The file only ever grows, so that a reader may follow it by byte offset.
    """

    def __init__(self, path: Path, *, quota_bytes: int = QUOTA_BYTES) -> None:
        super().__init__()
        make_folder(path.parent)  # it also holds how the attempt ended
        self._file: TextIO = path.open("a", encoding="utf-8", errors="replace", buffering=1)
        self._left = quota_bytes - self._file.tell()
        self._full = False
        self._dropped = 0
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self.setFormatter(logging.Formatter(_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record, as logging asks."""
        try:
            self._write(escaped(self.format(record)) + "\n")  # an error may quote any file's name
        except Exception:
            self.handleError(record)

    def _write(self, text: str) -> None:
        self._tail.append(text)
        self._left -= len(text.encode("utf-8", "replace"))
        if self._left >= 0:
            self._file.write(text)
            return
        if not self._full:
            self._full = True
            self._tail.clear()
            self._tail.append(text)
            self._file.write("... the log has reached its quota; its last lines follow when the attempt ends ...\n")
        self._dropped += 1

    def last_lines(self, count: int) -> str:
        """The last `count` records as text."""
        return "".join(list(self._tail)[-count:])

    def close(self) -> None:
        """Write the tail that the quota held back, as far as there is room on the disk, and close the file."""
        with contextlib.suppress(OSError):  # a log that has no room must not hide how the attempt ended
            if self._full:
                self._file.write(f"... {max(0, self._dropped - len(self._tail))} records are not kept ...\n")
                self._file.writelines(self._tail)
        with contextlib.suppress(OSError):
            self._file.close()
        super().close()


@contextlib.contextmanager
def log_to(path: Path, *, quota_bytes: int = QUOTA_BYTES) -> Iterator[RankLog]:
    """Send what `workers`, `cbam_core` and the warnings module say to `path`, and nowhere else, while this is open."""
    handler = RankLog(path, quota_bytes=quota_bytes)
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(logger.level, logger.propagate) for logger in loggers]
    logging.captureWarnings(True)
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield handler
    finally:
        for logger, (level, propagates) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagates
        logging.captureWarnings(False)
        handler.close()
