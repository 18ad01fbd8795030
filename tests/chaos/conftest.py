"""One stack for all the harm."""

import os
from collections.abc import Iterator

import pytest

from tests.chaos.lab import ChaosLab, chaos_lab

LONG = os.environ.get("CBAM_CHAOS") == "long"  # set by scripts/chaos


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosLab]:
    """A stack that is broken and mended again and again."""
    with chaos_lab(tmp_path_factory.mktemp("chaos")) as lab:
        yield lab
