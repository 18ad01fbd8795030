"""How an attempt ended, written once as result.json: the first rank that fails tells the cause.

Imports no torch: the dispatcher reads outcomes too.
"""

import errno
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from cbam_core.errors import CheckpointError, DataError, LoaderDied, LossNotFinite, PeerLost, Stalled, Superseded
from workers.protocol.storage import AttemptFolder, write_once

Ending = Literal["succeeded", "failed", "cancelled", "paused"]
Reason = Literal[
    "USER_ERROR", "CUDA_OOM", "LOSS_NOT_FINITE", "DATA_ERROR", "WORKER_DIED", "HANG_DETECTED", "CHECKPOINT_ERROR"
]

_BY_TYPE: tuple[tuple[type[Exception], Reason], ...] = (
    (PeerLost, "WORKER_DIED"),
    (Superseded, "WORKER_DIED"),
    (LoaderDied, "WORKER_DIED"),
    (Stalled, "HANG_DETECTED"),
    (LossNotFinite, "LOSS_NOT_FINITE"),
    (DataError, "DATA_ERROR"),
    (CheckpointError, "CHECKPOINT_ERROR"),
)
# A journal or a log may be what no longer fits, and not the checkpoint itself: the same thing to do about it.
_STORAGE_FULL = (errno.ENOSPC, errno.EDQUOT)
# torch's allocator has a type for it; what allocates beside it (CUDA's context, its libraries, NCCL) has words alone.
_OUT_OF_MEMORY_WORDS = (
    "cuda error: out of memory",
    "cuda driver error: out of memory",
    "cublas_status_alloc_failed",
    "cublas_status_not_initialized",  # no room for its handle
    "cudnn_status_alloc_failed",
    "cudnn_status_internal_error_device_allocation_failed",  # since cuDNN 9
    "cuda failure 2 'out of memory'",
    "cuda failure 'out of memory'",
)
# The machine's fault, in CUDA's words; another machine, or the same one after a reset, may do better.
_BROKEN_DEVICE_WORDS = (
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "hardware stack error",
    "device(s) is/are busy or unavailable",
    "no cuda-capable device is detected",
)
# gloo and NCCL report a lost peer as a bare RuntimeError; these are the words they use for it.
_PEER_LOST_WORDS = (
    "connection closed by peer",
    "connection reset by peer",
    "connection refused",
    "broken pipe",
    "timed out waiting",
    "socket timeout",
    "/gloo/transport/",
    "gloo connectfullmesh failed",
    "ncclremoteerror",
    "nccl communicator was aborted",
)


@dataclass(frozen=True)
class Outcome:
    """The record of how an attempt ended. `summary` says what was trained and at what cost.

    `tracked` is true where MLflow has taken all of it from the worker, the run's terminal status too.
    """

    outcome: Ending
    reason: Reason | None = None
    message: str = ""
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    rank: int = 0
    attempt: int = 0
    token: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    mlflow_run_id: str | None = None
    mlflow_experiment_id: str | None = None  # that the run is in
    tracked: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Back from `to_dict`."""
        return cls(**value)

    def record(self, folder: AttemptFolder) -> "Outcome":
        """Write this outcome unless another rank has written one; return the one that stands.

        The folder, which the attempt's logs have made, is not made again: without it, the experiment is deleted.
        """
        try:
            if write_once(folder.result, json.dumps(self.to_dict(), indent=2), parents=False):
                return self
        except FileNotFoundError:
            return self
        return read_outcome(folder) or self


def read_outcome(folder: AttemptFolder) -> Outcome | None:
    """The outcome of an attempt, or None while it has none."""
    try:
        return Outcome.from_dict(json.loads(folder.result.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def classify(error: BaseException) -> Reason:
    """The named reason behind an exception: the first one in its chain of causes that has one, or USER_ERROR."""
    return next((reason for cause in _causes(error) if (reason := _reason_of(cause))), "USER_ERROR")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _reason_of(error: BaseException) -> Reason | None:
    for kind, reason in _BY_TYPE:
        if isinstance(error, kind):
            return reason
    if isinstance(error, OSError) and error.errno in _STORAGE_FULL:
        return "CHECKPOINT_ERROR"
    return _reason_of_torch(error) if isinstance(error, RuntimeError) else None


def _reason_of_torch(error: RuntimeError) -> Reason | None:
    torch, words = sys.modules.get("torch"), str(error).lower()
    if torch and isinstance(error, torch.OutOfMemoryError):
        return "CUDA_OOM"
    if any(phrase in words for phrase in _OUT_OF_MEMORY_WORDS):
        return "CUDA_OOM"
    if torch and torch.distributed.is_available() and isinstance(error, torch.distributed.DistError):
        return "WORKER_DIED"
    if any(phrase in words for phrase in _PEER_LOST_WORDS + _BROKEN_DEVICE_WORDS):
        return "WORKER_DIED"
    return None
