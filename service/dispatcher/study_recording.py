"""Have MLflow told of comparisons by a process of its own, which is started when something of them has changed."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress

from service.comparisons.recording.rows import StudyRunRows
from service.settings import Settings

log = logging.getLogger(__name__)
LOOK_SECONDS = 10.0
EVERY_SECONDS = 60.0  # while comparisons go on; one that has ended is told of at the next look
LONGEST_SECONDS = 1800.0  # that a process may take
LONGEST_PAUSE_SECONDS = 600.0  # after failures: EVERY_SECONDS, doubled with each
COMMAND = (sys.executable, "-m", "service.comparisons.recording")


class StudyRecording:
    """Starts the process that tells MLflow of comparisons, at most one at a time, and never waits for it.

    Nothing depends on it: killed, or with MLflow away, it leaves rows that say what MLflow has not heard, and the next
    one goes on from them.
    """

    def __init__(self, rows: StudyRunRows, settings: Settings, *, clock: Callable[[], float]) -> None:
        self.rows = rows
        self.settings = settings
        self.clock = clock
        self.process: subprocess.Popen[str] | None = None
        self.look_at = 0.0
        self.started_at = float("-inf")
        self.failures = 0  # one after the other

    def tick(self) -> None:
        """Start a process where there is something to tell. Returns at once."""
        now = self.clock()
        if self.settings.mlflow_tracking_uri is None or self._is_busy(now) or now < self.look_at:
            return
        self.look_at = now + LOOK_SECONDS
        untold = self.rows.untold()
        is_due = now - self.started_at >= EVERY_SECONDS
        if any(of.has_ended for of in untold) or (is_due and untold) or self.rows.deleted():
            self.started_at = now
            try:
                self.process = self._start(self.settings.mlflow_tracking_uri)
            except OSError as error:  # no memory or no process to spare: trainings go on
                log.warning("MLflow cannot be told of comparisons now: %s", error)
                self._note_end(now, is_good=False)

    def close(self) -> None:
        """End the process; what it has not told is told by the next one, of whoever leads then."""
        if self.process is not None:
            self.process.kill()
            self._take(self.process)

    def _is_busy(self, now: float) -> bool:
        if self.process is None:
            return False
        code = self.process.poll()
        if code is None:
            if now - self.started_at > LONGEST_SECONDS:
                log.warning("MLflow takes longer than %.0f s to be told of comparisons: ended", LONGEST_SECONDS)
                self.process.kill()
            return True
        self._take(self.process)
        self._note_end(now, is_good=code == 0)
        return False

    def _note_end(self, now: float, *, is_good: bool) -> None:
        self.failures = 0 if is_good else self.failures + 1
        if self.failures:
            self.look_at = now + min(LONGEST_PAUSE_SECONDS, EVERY_SECONDS * 2.0 ** min(10, self.failures - 1))

    def _take(self, process: "subprocess.Popen[str]") -> None:
        process.wait()
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
        self.process = None

    def _start(self, tracking_uri: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, text=True)
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has died; its exit code says so
            process.stdin.write(json.dumps(self._where(tracking_uri)) + "\n")  # less than a pipe holds
            process.stdin.flush()
        return process  # it ends when this input does: with the dispatcher

    def _where(self, tracking_uri: str) -> dict[str, str | None]:
        settings = self.settings
        return {
            "database_url": settings.database_url,
            "storage": str(settings.storage_root),
            "tracking_uri": tracking_uri,
            "mlflow_url": settings.mlflow_public_url,
            "api_url": os.environ.get("CBAM_PUBLIC_URL") or (settings.url if settings.on_loopback else None),
        }
