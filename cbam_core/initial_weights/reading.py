"""Reads a weights file without running anything of it: safetensors, or torch's format with `weights_only`."""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from cbam_core.data_roots import DataRoots
from cbam_core.errors import StateDictMismatch, WeightsUnavailable
from cbam_core.normalisation import Normalisation

WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Under which of its keys a training script's checkpoint holds the network's weights; the first there is."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every name."""
_ADVICE = "save the network's state_dict alone, best as safetensors"


@dataclass(frozen=True)
class WeightsFile:
    """The weights in a file, on the CPU, and what it says of them, as far as it is one of ours.

    `about` holds classes, semantics and spec of an export.
    """

    state: Mapping[str, Tensor]
    sha256: str
    normalisation: Normalisation | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def read_weights(path: Path, roots: DataRoots, *, sha256: str | None = None) -> WeightsFile:
    """The weights at `path`. Raises DataError where it leads out of `roots`.

    Raises WeightsUnavailable where it cannot be read, or is not the file with this `sha256`, and StateDictMismatch
    where it holds something else.
    """
    try:
        with roots.open(path) as file:
            data = file.read()
    except OSError as error:
        raise WeightsUnavailable(f"the weights {path} cannot be read: {error.strerror}") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise WeightsUnavailable(
            f"the weights {path} are not those that were asked for: their SHA-256 is {found}, and not {sha256}; put "
            "the file back, or start a new experiment from the new one"
        )
    if _is_safetensors(data):
        return _safetensors(path, data, found)
    return _of_torch(path, data, found)


def _is_safetensors(data: bytes) -> bool:
    """Its first 8 bytes are the length of the JSON behind them."""
    return len(data) > 8 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= len(data) - 8


def _safetensors(path: Path, data: bytes, sha256: str) -> WeightsFile:
    try:
        state = safetensors.torch.load(data)
    except Exception as error:  # SafetensorError is not of Python's making, and KeyError is for dtypes
        raise WeightsUnavailable(f"the weights {path} are damaged: {error}") from error
    length = int.from_bytes(data[:8], "little")
    about: dict[str, Any] = {}
    for name, text in (json.loads(data[8 : 8 + length]).get("__metadata__") or {}).items():
        try:
            about[name] = json.loads(text)
        except ValueError:  # what another program says of its file
            continue
    return WeightsFile(_cleaned(path, state), sha256, _normalisation(about), about)


def _of_torch(path: Path, data: bytes, sha256: str) -> WeightsFile:
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever unpickling says
        words = str(error).partition("\n")[0][:300]
        raise WeightsUnavailable(
            f"the weights {path} cannot be read as tensors and plain values alone ({words}); {_ADVICE}"
        ) from error
    if not isinstance(content, Mapping):
        raise StateDictMismatch(f"{path} holds {type(content).__name__} and no weights by name; {_ADVICE}")
    learner = content.get("learner")
    if isinstance(learner, Mapping):  # our checkpoint: what its experiment would export
        state = learner.get("average") or learner.get("network")
        return WeightsFile(_cleaned(path, state), sha256, _normalisation(content.get("normalisation")))
    inner = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), content)
    return WeightsFile(_cleaned(path, inner), sha256)


def _cleaned(path: Path, state: object) -> dict[str, Tensor]:
    """The weights by name, without what wraps every name."""
    if not isinstance(state, Mapping) or not state:
        raise StateDictMismatch(f"{path} holds no weights; {_ADVICE}")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise StateDictMismatch(f"{path} holds {type(value).__name__} as {name!r}, and no weight; {_ADVICE}")
    found = dict(state)
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in found)), None):
        found = {name.removeprefix(prefix): value for name, value in found.items()}
    return found


def _normalisation(about: object) -> Normalisation | None:
    if not isinstance(about, Mapping):
        return None
    mean, std = about.get("mean"), about.get("std")
    if not isinstance(mean, list | tuple) or not isinstance(std, list | tuple) or len(mean) != len(std):
        return None
    return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))
