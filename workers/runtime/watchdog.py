"""Ends a rank that no longer moves: one that cannot answer is UNKNOWN to the dispatcher, which never acts on that.

Imports no torch: the dispatcher, which looks from outside, is patient for as long.
"""

import contextlib
import faulthandler
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from workers.protocol.progress import Progress

MOST_SECONDS_BETWEEN_LOOKS = 5.0
EXIT_CODE = 1


def dump_stacks(log: TextIO) -> None:
    """Write what every thread is doing."""
    log.write("--- stacks of all threads ---\n")
    log.flush()
    faulthandler.dump_traceback(log, all_threads=True)


@contextlib.contextmanager
def watched(
    progress: Callable[[], Progress],
    patience: Callable[[Progress], float],
    *,
    log: Path,
    give_up: Callable[[float], None],
) -> Iterator[None]:
    """While open, end this process where `progress` stays the same, from the first step on, for longer than `patience`.

    The stacks go to `log`, and `give_up` is told the seconds, to leave a record. Where the interpreter itself is held,
    so that no thread of Python runs, a timer of faulthandler's does the same after twice the time, without a record.
    """
    ended = threading.Event()

    def watch(file: TextIO) -> None:
        silent, last = 0.0, progress()
        while True:
            limit = patience(last)
            faulthandler.dump_traceback_later(2 * limit, exit=True, file=file)
            pause = min(MOST_SECONDS_BETWEEN_LOOKS, limit / 10)
            if ended.wait(pause):
                faulthandler.cancel_dump_traceback_later()
                return
            now = progress()
            silent = (
                silent + pause if now is last and now.phase != "starting" else 0.0
            )  # not a time asleep with all else
            last = now
            if silent > limit:
                dump_stacks(file)
                give_up(silent)
                os._exit(EXIT_CODE)

    with log.open("a", encoding="utf-8") as file:
        thread = threading.Thread(target=watch, args=(file,), name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
