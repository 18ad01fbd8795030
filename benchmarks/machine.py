"""What a measurement ran on: GPU, driver, versions of what computes, and the commit of the checkout.

python -m benchmarks.machine
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "triton", "torchvision", "timm", "numpy", "pydantic")
ROOT = Path(__file__).parents[1]


def describe_machine() -> dict[str, Any]:
    """Everything that can be found out; what cannot is None."""
    return {
        **_gpus(),
        "driver": _first_line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "compiler": shutil.which("gcc") or shutil.which("clang"),
        "commit": _commit(),
    }


def _gpus() -> dict[str, Any]:
    import torch

    gpus = torch.cuda.device_count()
    if not gpus:
        return {"device": "CPU", "gpus": 0, "cuda": torch.version.cuda}
    properties = torch.cuda.get_device_properties(0)
    return {
        "device": properties.name,
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "multiprocessors": properties.multi_processor_count,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit, with a + where tracked files differ from it."""
    commit = _first_line("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    changed = _first_line("git", "-C", str(ROOT), "status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if commit and changed else commit


def _first_line(*command: str) -> str | None:
    try:
        ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return ran.stdout.strip().split("\n")[0] or None


if __name__ == "__main__":
    print(json.dumps(describe_machine()))
