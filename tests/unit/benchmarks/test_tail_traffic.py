"""What a compiled tail reads and writes, as inductor counts it: a scatter in the maximum's backward costs more."""

import shutil

import pytest
import torch

from benchmarks.tail import STAGES, counted_traffic


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize(("attention", "at_most"), [("none", 12.1), ("se", 17.2), ("cbam", 30)])
def test_the_compiled_tail_stays_within_its_traffic(attention, at_most):
    forward, both = counted_traffic(attention, STAGES[0], torch.device("cpu"), batch=2)
    assert 4 < forward < both <= at_most
