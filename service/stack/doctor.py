"""What `cbam doctor` looks at: what is installed, what the machine has, and whether each part of the stack works."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx2

from service.errors import StackError
from service.stack.parts import environment, is_taken
from service.stack.record import StackRecord, load
from service.stack.stack import Stack

PACKAGES = ("torch", "torchvision", "timm", "ray", "mlflow", "fastapi", "uvicorn", "sqlalchemy", "scikit-learn")
MODULES = ("torch", "torchvision", "ray", "mlflow", "fastapi", "sklearn")
GIB = 1024**3
DISK_GIB = 2.0
SHARED_MEMORY_GIB = 0.25
COMMAND_SECONDS = 60.0
INSTALL = "scripts/setup, or pip install 'cbam-lab[all]'"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `advice` says what to do if it is not well."""

    name: str
    ok: bool
    found: str
    advice: str = ""


def examine(stack: Stack) -> list[Check]:
    """Look at everything; never raises for what it finds."""
    checks = [_python(), *_packages(), _imports(), _disk(stack.settings.home), _writable(stack.settings.storage_root)]
    if sys.platform == "linux":
        checks.append(_shared_memory())
    try:
        record = load(stack.settings.home)
        running = stack.status()
    except StackError as error:
        return [*checks, Check("stack", False, str(error), "delete the file that is named")]
    if record is None or not any(status.alive for status in running):
        return [*checks, *_ports(stack), Check("stack", False, "not running", "cbam up")]
    for status in running:
        found = "works" if status.ok else "does not answer" if status.alive else "not running"
        advice = f"cbam up; its log is {stack.settings.logs / status.part.name}.log"
        checks.append(Check(status.part.title, status.ok, found, advice))
    return [*checks, *_readiness(record), _ray(stack, record)]


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer, then cbam-lab")


def _packages() -> Iterator[Check]:
    for name in PACKAGES:
        try:
            yield Check(name, True, version(name))
        except PackageNotFoundError:
            yield Check(name, False, "not installed", INSTALL)


def _imports() -> Check:
    """In a process of its own, as a broken binary may take its importer down."""
    command = [sys.executable, "-c", f"import {', '.join(MODULES)}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Check("imports", False, f"not done in {COMMAND_SECONDS:.0f} s", "look for a full disk or a busy machine")
    lines = done.stderr.strip().splitlines()
    return Check("imports", done.returncode == 0, lines[-1] if done.returncode and lines else "fine", INSTALL)


def _disk(home: Path) -> Check:
    free = shutil.disk_usage(_existing(home)).free / GIB
    return Check(
        "disk", free >= DISK_GIB, f"{free:.1f} GiB free below {home}", f"free {DISK_GIB:.0f} GiB, or set CBAM_HOME"
    )


def _shared_memory() -> Check:
    free = shutil.disk_usage("/dev/shm").free / GIB
    advice = "Ray needs it; in a container: --shm-size=1g"
    return Check("shared memory", free >= SHARED_MEMORY_GIB, f"{free:.2f} GiB free in /dev/shm", advice)


def _writable(storage: Path) -> Check:
    nearest = _existing(storage)
    return Check("storage", os.access(nearest, os.W_OK), str(storage), f"make {nearest} writable, or set CBAM_STORAGE")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _ports(stack: Stack) -> Iterator[Check]:
    """Before the start: a port that is insisted on must be free; another may be taken, as the next free one serves."""
    for name, (port, insisted) in stack.settings.wanted_ports().items():
        taken = is_taken(port, stack.settings.host if name == "api" else "127.0.0.1")
        found = f"{port} is {'taken' if taken else 'free'}" + (
            ", the next free one is used" if taken and not insisted else ""
        )
        yield Check(
            f"port of {name}", not (taken and insisted), found, "choose another port, or end what listens there"
        )


def _readiness(record: StackRecord) -> Iterator[Check]:
    try:
        answer = httpx2.get(f"{record.url}/readyz", timeout=10, trust_env=False).json()
        components = answer["components"].items()
    except (httpx2.HTTPError, ValueError, KeyError) as error:
        yield Check("readiness", False, f"{record.url}/readyz: {error!r}", "cbam up")
        return
    for name, component in components:
        yield Check(
            f"API sees {name}",
            component["ok"],
            component["detail"] or ("fine" if component["ok"] else "away"),
            "cbam up",
        )


def _ray(stack: Stack, record: StackRecord) -> Check:
    """Ask the head itself, as a member of the cluster does: with the token."""
    script = "import json, ray; ray.init(logging_level='ERROR'); print(json.dumps(ray.cluster_resources()))"
    command = [sys.executable, "-c", script]
    env = environment(stack.settings, record, os.environ)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True, env=env)
        resources = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        return Check("Ray cluster", False, f"cannot join {record.ray_address}: {error}"[:200], "cbam down; cbam up")
    cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
    found = f"{cpus:g} CPUs, {gpus:g} GPUs, {resources.get('memory', 0) / GIB:.0f} GiB"
    return Check("Ray cluster", cpus > 0, found, "cbam down; cbam up")
