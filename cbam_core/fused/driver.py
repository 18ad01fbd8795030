"""Launch compiled Triton kernels by CUDA's driver: Triton's own launcher takes a slow host four times as long.

What is passed is checked against what the driver says of the kernel; where they differ, there is no such launch.
"""

import ctypes
import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch

_BUFFER, _SIZE, _END = 1, 2, 0  # CU_LAUNCH_PARAM_BUFFER_POINTER, _BUFFER_SIZE, _END
_FORMATS = {"i32": "i", "u32": "I", "i64": "q", "u64": "Q", "fp32": "f"}
_MOST_PARAMETERS = 64
_Extra = ctypes.c_void_p * 5


class DirectLaunch:
    """A compiled kernel with its grid and its numbers, to be called with the addresses of its arrays."""

    def __init__(
        self, compiled: Any, grid: Sequence[int], numbers: Sequence[float], *, packing: struct.Struct, device: int
    ) -> None:
        threads, shared = 32 * compiled.metadata.num_warps, compiled.metadata.shared
        self._function, self._shape = compiled.function, (*grid, threads, 1, 1, shared)
        self._numbers, self._pack, self._device = tuple(numbers), packing.pack, device
        self._buffer, self._size = ctypes.c_char * packing.size, ctypes.c_size_t(packing.size)
        self._size_address = ctypes.addressof(self._size)
        self._launch, self._compiled = _driver().cuLaunchKernel, compiled  # which must not be unloaded

    def __call__(self, *pointers: int) -> bool:
        """Launch on the current stream; False where the driver refuses, as in a thread that has no context yet."""
        buffer = self._buffer.from_buffer_copy(self._pack(*pointers, *self._numbers))
        extra = _Extra(_BUFFER, ctypes.addressof(buffer), _SIZE, self._size_address, _END)
        stream = torch._C._cuda_getCurrentRawStream(self._device)
        code: int = self._launch(self._function, *self._shape, stream, None, extra)
        return code == 0


def direct_launch(compiled: Any, grid: Sequence[int], numbers: Sequence[float], device: int) -> DirectLaunch | None:
    """Return the launch of a kernel that Triton has compiled and loaded on the GPU `device`, or None.

    numbers  its arguments that are neither arrays nor constants, in their order
    """
    try:
        types = list(compiled.src.signature.values())
        scalars = [kind for kind in types if not kind.startswith("*")][: len(numbers)]
        kept = [number for number, kind in zip(numbers, scalars, strict=True) if kind != "constexpr"]
        passed = ["Q" if kind.startswith("*") else _FORMATS[kind] for kind in types if kind != "constexpr"]
        found = _parameters(compiled.function)
        scratch = len(found) - len(passed)
        packing = struct.Struct("@" + "".join(passed) + "Q" * scratch)
        if scratch < 0 or compiled.metadata.num_ctas != 1 or found != _offsets(packing.format):
            return None
        return DirectLaunch(compiled, grid, [*kept, *[0] * scratch], packing=packing, device=device)
    except (AttributeError, KeyError, OSError, TypeError, ValueError):  # another Triton, another driver
        return None


def _offsets(form: str) -> list[tuple[int, int]]:
    """Where each value of a packing lies, and how many bytes it has."""
    sizes = [struct.calcsize(f"@{letter}") for letter in form[1:]]
    ends = [struct.calcsize(form[: index + 2]) for index in range(len(sizes))]
    return [(end - size, size) for end, size in zip(ends, sizes, strict=True)]


def _parameters(function: int) -> list[tuple[int, int]]:
    """The same of the parameters of a kernel, from the driver."""
    offset, size = ctypes.c_size_t(), ctypes.c_size_t()
    found: list[tuple[int, int]] = []
    while len(found) < _MOST_PARAMETERS:
        if _driver().cuFuncGetParamInfo(function, len(found), ctypes.byref(offset), ctypes.byref(size)):
            break
        found.append((offset.value, size.value))
    return found


@lru_cache
def _driver() -> ctypes.CDLL:
    driver = ctypes.CDLL("libcuda.so.1")
    driver.cuLaunchKernel.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 7, *[ctypes.c_void_p] * 3]
    driver.cuFuncGetParamInfo.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_void_p] * 2]
    return driver
