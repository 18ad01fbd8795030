"""The four parts of the local stack: how each is started, and how one sees that it works."""

import os
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import httpx2
import psutil

from service.stack.processes import MARK
from service.stack.record import StackRecord
from service.stack.settings import RAY_TEMP_ROOT, StackSettings
from workers.protocol.addresses import without_proxy_to_loopback

PROBE_SECONDS = 2.0
OBJECT_STORE_BYTES = 128 * 1024 * 1024  # workers read files; nothing is passed through Ray


@dataclass(frozen=True)
class StackProcess:
    """One process of the stack. `answers` is asked with the living members of its session, `through` another part."""

    name: str
    title: str
    command: tuple[str, ...]
    answers: Callable[[list[psutil.Process]], bool]
    through: str | None = None


def parts(settings: StackSettings, record: StackRecord) -> tuple[StackProcess, ...]:
    """Ray, MLflow, API, dispatcher: in the order in which they are shown. Each survives the others."""
    return (
        StackProcess("ray", "Ray head", _ray_command(settings, record), lambda group: _ray_answers(record, group)),
        StackProcess(
            "mlflow", "MLflow", _mlflow_command(settings, record), lambda _: _is_ok(f"{record.mlflow_url}/health")
        ),
        StackProcess("api", "API", _api_command(), lambda _: _is_ok(f"{record.url}/healthz")),
        StackProcess(
            "dispatcher", "dispatcher", _dispatcher_command(), lambda group: _dispatcher_answers(record, group), "api"
        ),
    )


def environment(settings: StackSettings, record: StackRecord, inherited: Mapping[str, str]) -> dict[str, str]:
    """What all parts get. Ray's workers inherit the head's environment, and so this."""
    foreign = ("RAY_", "MLFLOW_")  # another cluster's or server's, which the user works with elsewhere
    taken = {name: value for name, value in inherited.items() if not name.startswith(foreign)}
    taken.update(without_proxy_to_loopback(taken))
    chosen = settings.taken()
    return (
        taken
        | {name: chosen[name] for name in settings.chosen()}
        | {
            MARK: record.stack_id,
            "CBAM_HOME": str(settings.home),
            "CBAM_DATABASE_URL": settings.database_url,
            "CBAM_STORAGE": str(settings.storage_root),
            "CBAM_DATA_ROOTS": ":".join(map(str, settings.data_roots)),
            "CBAM_HOST": record.host,
            "CBAM_PORT": str(record.ports["api"]),
            "CBAM_LOG_FORMAT": settings.log_format,
            "CBAM_LOG_LEVEL": settings.log_level,
            "CBAM_STANDBY_WORKERS": str(settings.standby_workers),
            "GLOO_SOCKET_IFNAME": "lo" if sys.platform == "linux" else "lo0",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # it idles at 2 GB otherwise
            "MLFLOW_TRACKING_URI": record.mlflow_url,
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "RAY_ADDRESS": record.ray_address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": settings.ray_token(),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on any system: bind to loopback, never to the machine's address
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # one node has nowhere to drain to
            "RAY_USAGE_STATS_ENABLED": "0",
        }
    )


def ray_folder(settings: StackSettings) -> Path:
    """Where Ray's sockets and logs are: a short path, as sockets need, and one that no other user can foresee."""
    return RAY_TEMP_ROOT / f"cbam-{sha256(f'{settings.home} {settings.ray_token()}'.encode()).hexdigest()[:12]}"


def _ray_command(settings: StackSettings, record: StackRecord) -> tuple[str, ...]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cpus = settings.ray_cpus or (2 if cores < 2 else None)  # a gang of two fits everywhere; else Ray counts
    return (
        *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", f"--port={record.ports['ray']}"),
        *("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"),  # theirs are other Rays'
        *(f"--temp-dir={ray_folder(settings) / 'ray'}", f"--object-store-memory={OBJECT_STORE_BYTES}"),
        *("--include-dashboard=false", "--include-log-monitor=false", "--no-monitor", "--disable-usage-stats"),
        *((f"--num-cpus={cpus}",) if cpus else ()),
    )


def _mlflow_command(settings: StackSettings, record: StackRecord) -> tuple[str, ...]:
    return (
        *(sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={record.ports['mlflow']}"),
        "--backend-store-uri=sqlite:///mlflow/mlflow.db",  # below its working folder, the home: MLflow unquotes no URL
        f"--artifacts-destination={(settings.home / 'mlflow' / 'artifacts').as_uri()}",
        *("--workers=1", "--allowed-hosts=127.0.0.1:*,localhost:*"),
    )


def _api_command() -> tuple[str, ...]:
    return (sys.executable, "-m", "service.api")


def _dispatcher_command() -> tuple[str, ...]:
    return (sys.executable, "-m", "service.dispatcher.supervisor", sys.executable, "-m", "service.dispatcher")


def _ray_answers(record: StackRecord, group: list[psutil.Process]) -> bool:
    """The port is open and the raylet lives: `ray start --block` stays when only the raylet has died."""
    return is_taken(record.ports["ray"]) and any(_name(process) == "raylet" for process in group)


def _dispatcher_answers(record: StackRecord, group: list[psutil.Process]) -> bool:
    """The keeper has its child, and the API sees somebody lead."""
    if len(group) < 2:
        return False
    try:
        components = httpx2.get(f"{record.url}/readyz", timeout=PROBE_SECONDS, trust_env=False).json()["components"]
        return bool(components["dispatcher"]["ok"])
    except (httpx2.HTTPError, ValueError, KeyError):
        return False


def _is_ok(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=PROBE_SECONDS, trust_env=False).is_success
    except httpx2.HTTPError:
        return False


def is_taken(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(PROBE_SECONDS)
        return probe.connect_ex((host, port)) == 0


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""
