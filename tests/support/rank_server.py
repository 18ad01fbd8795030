"""A process that has loaded torch and the training, and forks itself for every rank that `ranks.py` asks of it.

`python -m tests.support.rank_server` reads one JSON object a line from stdin: the rank's arguments, environment,
folder, and the files of its output. It answers with the rank's pid, and writes its exit code to a file when the rank
has ended. The rank leaves the interpreter as any program does, so what outlives the interpreter's end is seen here too.
"""

import json
import os
import runpy
import select
import signal
import sys
from pathlib import Path
from typing import Any

from workers.preload import load_ahead


def serve() -> None:
    """Answer until stdin ends; in a forked process, return from here as the rank."""
    ended, notify = os.pipe()
    os.set_blocking(notify, False)
    signal.set_wakeup_fd(notify)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    exit_files: dict[int, Path] = {}
    unread = b""
    while True:
        ready, _, _ = select.select([0, ended], [], [])
        if ended in ready:
            os.read(ended, 4096)
            _write_exit_codes(exit_files)
        if 0 in ready:
            chunk = os.read(0, 1 << 16)
            if not chunk:
                return
            *lines, unread = (unread + chunk).split(b"\n")
            for line in lines:
                request = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    os.close(ended)
                    os.close(notify)
                    _run(request)
                    return
                exit_files[pid] = Path(request["exit_file"])
                os.write(1, b"%d\n" % pid)


def _write_exit_codes(exit_files: dict[int, Path]) -> None:
    for pid in list(exit_files):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            file = exit_files.pop(pid)
            partial = file.with_suffix(".partial")
            partial.write_text(str(os.waitstatus_to_exitcode(status)))
            partial.rename(file)


def _run(request: dict[str, Any]) -> None:
    """Become the rank: its output, environment and folder, then its program, as `python -m` or `python -c` runs it."""
    for number, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
        file = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    kind, program, *arguments = request["arguments"]
    if kind == "-m":
        sys.argv = [program, *arguments]
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *arguments]
        exec(compile(program, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    load_ahead()
    serve()
