"""Ranks as real processes: started together, with the environment that torchrun gives, and always ended."""

import os
import subprocess
import sys
from collections.abc import Sequence

from tests.ports import free_port


class Ranks:
    """Starts gangs of Python processes; `end` leaves none of them."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[str]] = []

    def start(self, arguments: Sequence[str], world_size: int, **environment: str) -> list[subprocess.Popen[str]]:
        """One process per rank, all with these arguments of python's, which meet at a free port of this machine."""
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        gang = []
        for rank in range(world_size):
            place = {"RANK": str(rank), "WORLD_SIZE": str(world_size)}
            values = os.environ | meeting | environment | place
            process = subprocess.Popen([sys.executable, *arguments], env=values, stdout=pipe, stderr=pipe, text=True)
            self._started.append(process)
            gang.append(process)
        return gang

    def end(self) -> None:
        """Kill what is left."""
        for process in self._started:
            process.kill()
            process.communicate()
