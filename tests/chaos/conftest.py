"""One stack for all the harm, and chance that can be had again.

The quick part runs in `scripts/test --all`, with a fixed seed. What is marked `chaos` is the long part, which
`scripts/chaos` runs too; it tries everything once more with a seed that is drawn and printed.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.lab import ChaosLab, chaos_lab

FIXED_SEED = 1807


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Not in the quick tier: of whole stacks that are killed, that has tests/integration/test_survives.py."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosLab]:
    """A stack that is broken and mended again and again, over a PostgreSQL of its own where that is installed."""
    with chaos_lab(tmp_path_factory.mktemp("chaos")) as lab:
        yield lab


@pytest.fixture(params=["fixed", pytest.param("drawn", marks=pytest.mark.chaos)])
def chance(request: pytest.FixtureRequest) -> random.Random:
    """The same again: `CBAM_CHAOS_SEED=<what was printed>`."""
    drawn = os.environ.get("CBAM_CHAOS_SEED") or random.SystemRandom().randrange(1, 10**6)
    seed = FIXED_SEED if request.param == "fixed" else int(drawn)
    print(f"CBAM_CHAOS_SEED={seed}")
    return random.Random(seed)
