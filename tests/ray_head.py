"""A real Ray head for tests: its own port, its own folder, gone at the end, and nothing else touched."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.waiting import wait_until

RAY_ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


@dataclass(frozen=True)
class RayHead:
    """A running head."""

    address: str
    process: psutil.Process
    dashboard_port: int

    def workers(self) -> list[psutil.Process]:
        """The processes of our training workers, on this head only."""
        return [child for child in self.process.children(recursive=True) if "TrainWorker" in _title(child)]


def free_port() -> int:
    """A port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def ray_head(
    cpus: int = 2,
    *,
    gpus: int = 0,
    dashboard: bool = False,
    python: str = sys.executable,
) -> Iterator[RayHead]:
    """Start a head, and end it with all its processes.

    `gpus` need not exist: Ray only counts them. Ray Jobs need the dashboard.
    """
    port, dashboard_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="cbam-ray-", ignore_cleanup_errors=True) as folder:
        command = [
            *(python, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *(f"--port={port}", f"--num-cpus={cpus}", f"--temp-dir={folder}"),
            *(f"--include-dashboard={str(dashboard).lower()}", f"--dashboard-port={dashboard_port}"),
            *("--disable-usage-stats", "--object-store-memory=100000000", f"--num-gpus={gpus}"),
        ]
        environment = os.environ | RAY_ENVIRONMENT
        with open(Path(folder) / "head.log", "wb") as log:
            head = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        process = psutil.Process(head.pid)
        try:
            wait_until(lambda: b"Ray runtime started" in (Path(folder) / "head.log").read_bytes(), "the Ray head")
            yield RayHead(f"127.0.0.1:{port}", process, dashboard_port)
        finally:
            end(process, named=folder)
            head.wait()


def end(process: psutil.Process, *, named: str) -> None:
    """Kill a head, its children, and those of its processes that became orphans: they name its folder."""
    doomed = [process, *process.children(recursive=True)]
    doomed += [other for other in psutil.process_iter() if other.pid != os.getpid() and named in _title(other)]
    for one in doomed:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(doomed, timeout=10)


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
