"""Where a result comes from: the versions and the commit that made it, and the load of the machine it was made on."""

import hashlib
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

_PACKAGES = {name: name for name in ("cbam-lab", "torch", "torchvision", "timm", "ray")}
_PACKAGES["mlflow"] = "mlflow-skinny"  # the part of it that every worker has, always of the same version
_SOURCES = ("cbam_core", "workers")  # what trains; the service around it changes no result


def provenance() -> dict[str, str]:
    """Where the result comes from: versions of what made it, and the commit of the code where it is a checkout."""
    tags = {f"version.{name}": version_of(package) for name, package in _PACKAGES.items()} | {
        "version.python": sys.version.split()[0]
    }
    if commit := os.environ.get("CBAM_GIT_COMMIT") or _git_commit():
        tags["mlflow.source.git.commit"] = commit
    return tags


@cache
def version_of(package: str) -> str:
    """The installed version of a package; its metadata take a millisecond to read, so once for a process."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@cache
def code_version() -> str:
    """The version of cbam-lab and a digest of the sources that train, as in 0.2.0-1f0c2d3e4a5b.

    Two runs with the same one were trained by the same code, whether or not it is a checkout. Read once for a process,
    early: sources that are replaced under a running process are not what it runs.
    """
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for folder in _SOURCES for path in (root / folder).rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return f"{version_of('cbam-lab')}-{digest.hexdigest()[:12]}"


@cache
def _git_commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def system_metrics() -> dict[str, float]:
    """Of this worker and its machine, by the names of MLflow's own system metrics."""
    memory, process = psutil.virtual_memory(), psutil.Process()
    return {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_usage_megabytes": process.memory_info().rss / 1e6,
    }
