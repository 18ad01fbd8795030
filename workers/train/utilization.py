"""What the training runs on and how well it uses it: name, end of its work, model FLOPs utilisation, peak memory."""

import contextlib
import platform
import resource
import sys
from functools import cache
from pathlib import Path

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_PROCESSORS = Path("/proc/cpuinfo")
_PEAK_OF_MEMORY = "5"

PEAK_HALF_FLOPS = {
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIE": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "A10": 125e12,
    "A10G": 70e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "V100 PCIE": 112e12,
    "V100": 125e12,
    "T4": 65e12,
}
"""Dense bf16/fp16 FLOP/s by words of the device's name, from the vendor's data sheets; what has most words counts."""
WITHOUT_BF16 = {"V100", "T4"}
"""Their tensor cores know fp16 alone."""


def model_flops_utilisation(macs: int, images_per_second: float, peak_flops: float) -> float:
    """Share of the peak that goes into the network's own arithmetic (Chowdhery et al. 2022, appendix B).

    A training step costs three forward passes of 2 FLOP per multiply-add.
    """
    return 6 * macs * images_per_second / peak_flops


def peak_flops(device: torch.device, precision: str, world_size: int) -> float | None:
    """FLOP/s of all devices together, each like `device`.

    None on CPUs, on a slice of a GPU (MIG), on one that is not listed, in a precision that its tensor cores do not
    have, and in fp32, which may or may not be TF32.
    """
    if device.type != "cuda" or precision == "fp32":
        return None
    words = set(torch.cuda.get_device_name(device).upper().replace("-", " ").split())
    if "MIG" in words or (precision == "bf16" and words & WITHOUT_BF16):
        return None
    known = [name for name in PEAK_HALF_FLOPS if words.issuperset(name.split())]
    return world_size * PEAK_HALF_FLOPS[max(known, key=lambda name: len(name.split()))] if known else None


def device_name(device: torch.device) -> str:
    """The GPU's name, of a slice (MIG) too; or `cpu` and the processor's, as in cpu (AMD EPYC 9R14)."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({_processor()})"


@cache
def _processor() -> str:
    """The processor's model; where the system does not tell, its architecture."""
    with contextlib.suppress(OSError):  # Linux alone has it; see proc(5)
        for line in _PROCESSORS.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


def synchronize(device: torch.device) -> None:
    """Wait until `device` has done all that it was given to do: a GPU works on while this process goes ahead."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak_memory(device: torch.device) -> None:
    """Let `peak_memory_bytes` begin anew: a warm worker has trained other experiments before this one."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):  # Linux alone has it; see proc(5)
        _CLEAR.write_text(_PEAK_OF_MEMORY)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory since `reset_peak_memory`: of tensors on this rank's GPU; on a CPU, of this process.

    Where the system cannot forget (not Linux), the most that this process ever took.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATUS.exists():
        (line,) = (line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
