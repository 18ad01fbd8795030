"""A real Ray head for tests: its own port, its own folder, gone at the end, and nothing else touched."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray

from service.cluster.base import Cluster
from service.errors import ClusterUnavailable
from tests.support.ports import free_port
from tests.support.waiting import wait_until

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


@contextmanager
def ray_head(
    cpus: int = 2,
    *,
    gpus: int = 0,
    dashboard: bool = False,
    python: str = sys.executable,
    grows_by: Mapping[str, Any] | None = None,
) -> Iterator[RayHead]:
    """Start a head, and end it with all its processes.

    `gpus` need not exist: Ray only counts them. Ray Jobs need the dashboard. With `grows_by` (`max_workers` and
    `resources`), Ray's autoscaler adds such nodes where they are wanted: raylets, by Ray's own stand-in for a cloud.
    """
    port, dashboard_port = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="cbam-ray-", ignore_cleanup_errors=True) as folder:
        command = [
            *(python, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
            *(f"--port={port}", f"--num-cpus={cpus}", f"--temp-dir={folder}"),
            *(f"--include-dashboard={str(dashboard).lower()}", f"--dashboard-port={dashboard_port}"),
            *("--disable-usage-stats", "--object-store-memory=100000000", f"--num-gpus={gpus}"),
            "--dashboard-agent-listen-port=0",  # its own would be taken where two heads share a machine
        ]
        environment = os.environ | RAY_ENVIRONMENT
        if grows_by:
            plan = Path(folder, "autoscaler.yaml")
            plan.write_text(json.dumps(_cloud(port, cpus, grows_by)))
            command.append(f"--autoscaling-config={plan}")
            environment |= {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        with open(Path(folder) / "head.log", "wb") as log:
            head = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        process = psutil.Process(head.pid)
        try:
            wait_until(lambda: _started(head, Path(folder, "head.log")), "the Ray head")
            yield RayHead(f"127.0.0.1:{port}", process, dashboard_port)
        finally:
            ray.shutdown()  # a test that failed may have left it: Ray ends a process a minute after its head is gone
            end(process, named=folder)
            head.wait()


@contextmanager
def ray_node(address: str, folder: Path, *, cpus: int = 1, gpus: int = 0) -> Iterator[Callable[[], None]]:
    """Another node at the head of `address`, with GPUs that need not exist; gives what makes it vanish."""
    command = [
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block", f"--address={address}"),
        *(f"--num-cpus={cpus}", f"--num-gpus={gpus}", "--min-worker-port=0", "--max-worker-port=0"),
        *("--disable-usage-stats", "--object-store-memory=80000000"),
    ]
    with (folder / "node.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=os.environ | RAY_ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
        )

    def vanish() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    try:
        yield vanish
    finally:
        vanish()


def _cloud(port: int, cpus: int, grows_by: Mapping[str, Any]) -> dict[str, Any]:
    """What Ray's autoscaler is told of a cloud, as by ray.cluster_utils.AutoscalingCluster (which ends all of Ray)."""
    return {
        "cluster_name": "stand-in",
        "max_workers": grows_by["max_workers"],
        "idle_timeout_minutes": 60,
        "upscaling_speed": 1.0,
        **{"auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": []},
        **{f"{name}_commands": [] for name in ("initialization", "setup", "head_setup", "worker_setup")},
        **{f"{name}_start_ray_commands": [] for name in ("head", "worker")},
        "provider": {"type": "fake_multinode", "gcs_address": f"127.0.0.1:{port}"},
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": cpus}, "node_config": {}, "max_workers": 0},
            "added": {"node_config": {}, "min_workers": 0, **grows_by},
        },
    }


def end(process: psutil.Process, *, named: str) -> None:
    """Kill a head, its children, and those of its processes that became orphans: they name its folder."""
    doomed = [process]
    with suppress(psutil.NoSuchProcess):  # where it has ended by itself, which is told already
        doomed += process.children(recursive=True)
    doomed += [other for other in psutil.process_iter() if other.pid != os.getpid() and named in _title(other)]
    for one in doomed:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(doomed, timeout=10)


def _started(head: subprocess.Popen[bytes], log: Path) -> bool:
    assert head.poll() is None, f"the Ray head ended:\n{log.read_text()[-4000:]}"
    return b"Ray runtime started" in log.read_bytes()


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def nodes_seen(cluster: Cluster) -> int:
    """How many nodes it shows; none while nothing is known of it."""
    try:
        return len(cluster.observe().nodes)
    except ClusterUnavailable:
        return 0
