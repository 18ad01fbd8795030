"""Ranks as real processes: started together, with the environment that torchrun gives, and always ended.

They are forked by a process that has loaded torch already (`rank_server.py`), which saves each rank four seconds of
both cores' time; `fresh=True` starts the interpreter as a user would.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from tests.support.ports import free_port

# Read where torch and the training are imported, which is in the server.
SERVER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CBAM_TRACKING_CLOSE_SECONDS": "0",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",  # a process that forks has no other threads
}


class Rank(Protocol):
    """What a test does with one, as with a `subprocess.Popen`."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def communicate(self, timeout: float | None = None) -> tuple[str, str]: ...
    def send_signal(self, number: int) -> None: ...
    def kill(self) -> None: ...


class ForkedRank:
    """A rank that the server forked."""

    def __init__(self, pid: int, exit_file: Path, stdout: Path, stderr: Path) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._exit_file, self._output = exit_file, (stdout, stderr)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""
        if self.returncode is None and self._exit_file.exists():
            self.returncode = int(self._exit_file.read_text())
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended. Raises `subprocess.TimeoutExpired`."""
        deadline = time.monotonic() + (timeout or 600)
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"rank {self.pid}: {self._output[1].read_text()}", timeout or 600)
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it printed, once it has ended."""
        self.wait(timeout)
        stdout, stderr = self._output
        return stdout.read_text(), stderr.read_text()

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(9)


class RankServer:
    """The process that forks ranks; started at the first one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._forked = 0

    def fork(self, arguments: Sequence[str], environment: dict[str, str]) -> ForkedRank:
        """A rank that runs `python ARGUMENTS`, as far as these are `-m MODULE …` or `-c PROGRAM …`."""
        for name, value in SERVER_ENVIRONMENT.items():
            assert environment.get(name, value) == value, f"{name} is read at an import: start the rank with fresh=True"
        process = self._process or self._start()
        self._forked += 1
        exit_file, stdout, stderr = (self._folder / f"{self._forked}.{kind}" for kind in ("exit", "out", "err"))
        stdout.touch()
        stderr.touch()
        request = {
            "arguments": list(arguments),
            "environment": environment,
            "folder": os.getcwd(),
            "exit_file": str(exit_file),
            "stdout": str(stdout),
            "stderr": str(stderr),
        }
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        assert answer, "the server of ranks has ended"
        return ForkedRank(int(answer), exit_file, stdout, stderr)

    def stop(self) -> None:
        """It ends with its stdin."""
        if self._process is not None:
            self._process.communicate(timeout=60)

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.rank_server"],
            env=os.environ | SERVER_ENVIRONMENT,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self._process


class Ranks:
    """Starts gangs of Python processes; `end` leaves none of them."""

    def __init__(self, server: RankServer) -> None:
        self._server = server
        self._started: list[Rank] = []

    def start(
        self, arguments: Sequence[str], world_size: int, *, fresh: bool = False, **environment: str
    ) -> list[Rank]:
        """One process per rank, all with these arguments of python's, which meet at a free port of this machine."""
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
        gang: list[Rank] = []
        for rank in range(world_size):
            place = {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
            values = os.environ | meeting | environment | place
            process = _fresh(arguments, values) if fresh else self._server.fork(arguments, values)
            self._started.append(process)
            gang.append(process)
        return gang

    def end(self) -> None:
        """Kill what is left."""
        for process in self._started:
            process.kill()
            process.communicate()


def _fresh(arguments: Sequence[str], environment: dict[str, str]) -> Rank:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)
