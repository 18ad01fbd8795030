"""Keep one process running: start it again, with back-off, after a bad end.

`python -m service.dispatcher.supervisor COMMAND…`.

Ray ends a driver from within, by C++ code, 60 s after the head is lost; the dispatcher is such a driver. SIGTERM and
Ctrl-C are passed on and end both. A command that ends well (exit code 0) is not started again.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from service import log_format
from service.log_format import LogFormat

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
HEALTHY_SECONDS = 60.0  # whoever ran this long starts again without delay


def keep(command: Sequence[str], stop: threading.Event) -> int:
    """Run the command until it ends well or `stop` is set; returns the exit code to end with."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        started = time.monotonic()
        code = _run(command, stop)
        if stop.is_set() or code == 0:
            return max(code, 0)
        if time.monotonic() - started > HEALTHY_SECONDS:
            pause = FIRST_PAUSE_SECONDS
        log.warning("%s ended with %s; starting it again in %.1f s", " ".join(command), code, pause)
        if stop.wait(pause):
            return 0
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _run(command: Sequence[str], stop: threading.Event) -> int:
    """Run the command once; SIGTERM reaches it when `stop` is set."""
    with subprocess.Popen(command) as child:
        while child.poll() is None:
            if stop.wait(0.2):
                child.terminate()
                break
        return child.wait()


def main() -> int:
    """Keep the command of the arguments."""
    command = sys.argv[1:]
    if not command:
        print("usage: python -m service.dispatcher.supervisor COMMAND…", file=sys.stderr)
        return 2
    # Not through Settings: this process stays for ever, and stays small.
    form: LogFormat = "json" if os.environ.get("CBAM_LOG_FORMAT") == "json" else "logfmt"
    log_format.configure("keeper", form=form)
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: stop.set())
    return keep(command, stop)


if __name__ == "__main__":
    raise SystemExit(main())
