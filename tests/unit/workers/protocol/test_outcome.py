import errno
import json

import pytest
import torch

from cbam_core.errors import CheckpointError, DataError, LoaderDied, LossNotFinite, PeerLost
from workers.protocol.assignment import Assignment
from workers.protocol.outcome import Outcome, classify, read_outcome
from workers.protocol.progress import Progress
from workers.protocol.storage import AttemptFolder
from workers.train.distributed import ProcessGroup

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.0.0.2]:33020"

NO_HOST_MEMORY = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4000000000000000 bytes. Error code 12 (Cannot allocate memory)"
)
NCCL_OUT_OF_MEMORY = (
    "NCCL error in: NCCLUtils.cpp:94, unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version "
    "2.27.5\nncclUnhandledCudaError: Call to CUDA function failed.\nLast error:\nCuda failure 2 'out of memory'"
)


def caused_by(cause: Exception) -> Exception:
    error = ValueError("something else")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LossNotFinite(), "LOSS_NOT_FINITE"),
        (DataError(), "DATA_ERROR"),
        (CheckpointError(), "CHECKPOINT_ERROR"),
        (OSError(errno.ENOSPC, "No space left on device"), "CHECKPOINT_ERROR"),
        (PeerLost(), "WORKER_DIED"),
        (LoaderDied(), "WORKER_DIED"),
        (RuntimeError(GLOO), "WORKER_DIED"),
        (torch.distributed.DistNetworkError("refused"), "WORKER_DIED"),
        (torch.OutOfMemoryError("CUDA out of memory"), "CUDA_OOM"),
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be …"), "CUDA_OOM"),
        (RuntimeError("CUDA error: out of memory"), "CUDA_OOM"),
        (RuntimeError("CUDA driver error: out of memory"), "CUDA_OOM"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "CUDA_OOM"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "CUDA_OOM"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), "CUDA_OOM"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED"), "USER_ERROR"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), "CUDA_OOM"),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"), "WORKER_DIED"),
        (RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable"), "WORKER_DIED"),
        (RuntimeError("CUDA error: no CUDA-capable device is detected"), "WORKER_DIED"),
        (torch.distributed.DistBackendError(NCCL_OUT_OF_MEMORY), "CUDA_OOM"),
        (caused_by(RuntimeError("CUDA error: out of memory")), "CUDA_OOM"),
        (RuntimeError(NO_HOST_MEMORY), "USER_ERROR"),
        (MemoryError("out of memory"), "USER_ERROR"),
        (ValueError("CUDA error: out of memory"), "USER_ERROR"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "USER_ERROR"),
        (torch.distributed.DistBackendError("NCCL error: unhandled system error"), "WORKER_DIED"),
        (caused_by(RuntimeError(GLOO)), "WORKER_DIED"),
        (RuntimeError("shapes do not match"), "USER_ERROR"),
        (ValueError("Connection closed by peer"), "USER_ERROR"),
        (KeyError("x"), "USER_ERROR"),
    ],
)
def test_every_error_has_a_named_reason(error, reason):
    assert classify(error) == reason


def test_the_first_outcome_stands(tmp_path):
    folder = AttemptFolder(tmp_path)
    assert read_outcome(folder) is None
    first = Outcome("failed", "LOSS_NOT_FINITE", "the cause", rank=1, metrics={"train/loss": 0.1 + 0.2})
    echo = Outcome("failed", "WORKER_DIED", "rank 1 is gone", rank=0)
    assert first.record(folder) == first
    assert echo.record(folder) == first
    assert read_outcome(folder) == first


def test_what_crosses_processes_survives_json(tiny_spec):
    spec = tiny_spec(model={"attention": {"type": "se", "reduction": 4}, "stages": [1, 3]})
    for value in (
        Assignment("e", 2, "t", spec, "/s", 1, 2, "10.0.0.1", 1234, "http://mlflow", ("/data", "/more")),
        Progress("training", 3, 10, 1, 2, 100.0, 4.5, {"lr": 0.1}, "hm", 1.5, "abc"),
        Outcome("paused", step=3, summary={"macs": 10}),
    ):
        assert type(value).from_dict(json.loads(json.dumps(value.to_dict()))) == value


@pytest.mark.parametrize(
    ("words", "kind"),
    [("NCCL error: Cuda failure 2 'out of memory'", RuntimeError), ("Connection closed by peer", PeerLost)],
)
def test_a_gang_that_lacks_memory_has_lost_nobody(words, kind, monkeypatch):
    def fail(*_):
        raise RuntimeError(words)

    monkeypatch.setattr("torch.distributed.all_reduce", fail)
    with pytest.raises(kind) as raised:
        ProcessGroup(0, 2, torch.device("cpu")).sum(torch.zeros(1))
    assert classify(raised.value) == ("WORKER_DIED" if kind is PeerLost else "CUDA_OOM")
