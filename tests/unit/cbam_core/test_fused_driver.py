"""Launches of compiled kernels by CUDA's driver, with a driver that only writes down what it is given."""

import ctypes
import struct
from types import SimpleNamespace

import pytest
import torch

from cbam_core.fused import driver as module
from cbam_core.fused.driver import direct_launch
from cbam_core.fused.launch import Launch

SIGNATURE = {"z": "*bf16", "out": "*fp32", "eps": "fp32", "one": "constexpr", "places": "i32", "ROWS": "constexpr"}
PARAMETERS = [(0, 8), (8, 8), (16, 4), (20, 4), (24, 8), (32, 8)]
"""Two arrays, eps, places, and room for Triton's own two."""


class Driver:
    """Answers for one kernel."""

    def __init__(self):
        self.parameters, self.code, self.launched = PARAMETERS, 0, []
        self.cuFuncGetParamInfo, self.cuLaunchKernel = self._tell, self._launch

    def _tell(self, _, index, offset, size):
        if index >= len(self.parameters):
            return 1
        offset._obj.value, size._obj.value = self.parameters[index]
        return 0

    def _launch(self, function, *rest):
        *shape, stream, _, extra = rest
        size = ctypes.c_size_t.from_address(extra[3]).value
        self.launched.append((function, shape, stream, ctypes.string_at(extra[1], size)))
        return self.code


def compiled_kernel(signature=SIGNATURE, ctas=1):
    metadata = SimpleNamespace(num_warps=4, shared=96, num_ctas=ctas)
    return SimpleNamespace(src=SimpleNamespace(signature=signature), metadata=metadata, function=77)


@pytest.fixture
def driver(monkeypatch):
    made = Driver()
    monkeypatch.setattr(module, "_driver", lambda: made)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 40 + device, raising=False)
    return made


def test_arrays_and_numbers_are_packed_as_the_kernel_takes_them(driver):
    launch = direct_launch(compiled_kernel(), (5, 2, 1), (0.5, 1, 9), device=2)
    assert launch(1000, 2000)
    function, shape, stream, packed = driver.launched[0]
    assert (function, shape, stream) == (77, [5, 2, 1, 128, 1, 1, 96], 42)
    assert struct.unpack("@QQfiQQ", packed) == (1000, 2000, 0.5, 9, 0, 0)


@pytest.mark.parametrize(
    "parameters", [PARAMETERS[:3], [(0, 8), (8, 8), (16, 8), (24, 4), (32, 8), (40, 8)], PARAMETERS[::-1]]
)
def test_a_kernel_that_takes_something_else_is_left_to_triton(driver, parameters):
    driver.parameters = parameters
    assert direct_launch(compiled_kernel(), (1, 1, 1), (0.5, 1, 9), device=0) is None


@pytest.mark.parametrize(
    "kernel",
    [
        compiled_kernel(SIGNATURE | {"places": "tensordesc"}),
        compiled_kernel(ctas=2),
        compiled_kernel({"z": "*bf16"}),
        SimpleNamespace(),
    ],
)
def test_a_kernel_of_an_unknown_kind_is_left_to_triton(driver, kernel):
    assert direct_launch(kernel, (1, 1, 1), (0.5, 1, 9), device=0) is None


def test_without_the_library_of_the_driver_it_is_left_to_triton(monkeypatch):
    def missing():
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(module, "_driver", missing)
    assert direct_launch(compiled_kernel(), (1, 1, 1), (0.5, 1, 9), device=0) is None


def test_what_the_driver_refuses_is_launched_by_triton(driver):
    driver.code = 201  # a thread without a context
    launch, launched = Launch(None, (3,), (0.5, 1, 9), warps=4, ROWS=16), []
    launch._run = lambda *arguments: launched.append(arguments)
    launch._direct = direct_launch(compiled_kernel(), (3, 1, 1), (0.5, 1, 9), device=0)
    launch(1000, 2000)
    assert launched == [(1000, 2000, 0.5, 1, 9, 16)]
    driver.code = 0
    launch(1000, 2000)
    assert len(launched) == 1
