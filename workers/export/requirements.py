"""What exports and torch.compile need to be installed, checked before the training."""

import importlib.util
import os
import shutil
from collections.abc import Iterable

import torch

from cbam_core.errors import ExportError, SpecError
from cbam_core.spec import ExportFormat

_ONNX_PACKAGES = ("onnx", "onnxruntime", "onnxscript")


def require(formats: Iterable[ExportFormat]) -> None:
    """Raises ExportError where this machine lacks what `formats` need: before the training rather than after it."""
    missing = [name for name in _ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if "onnx" in formats and missing:
        raise ExportError(f"ONNX needs {', '.join(missing)}: install cbam-lab[onnx], or leave `onnx` out of `export`")


def require_compiler(device: torch.device) -> None:
    """Raises SpecError where torch.compile has no compiler for `device`; by itself it says so at the first step."""
    names = ("gcc", "clang") if device.type == "cuda" else ("g++", "clang++")
    variable = "CC" if device.type == "cuda" else "CXX"
    if variable not in os.environ and not any(map(shutil.which, names)):
        raise SpecError(
            f"train.compile needs {names[0]} or {names[1]} where the training runs: install it there (Debian: "
            f"apt install gcc g++), or set train.compile to false"
        )
