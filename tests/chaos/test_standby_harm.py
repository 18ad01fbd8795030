"""Harm while workers stand by: what comes next ends right, and they stand by again."""

import signal
from collections.abc import Iterator

import pytest

from service.domain.states import State
from tests.chaos.lab import ChaosLab, chaos_lab
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosLab]:
    with chaos_lab(tmp_path_factory.mktemp("standby"), standby_workers=1) as lab:
        yield lab


@pytest.mark.parametrize(
    "part", ["dispatcher", "worker", *(pytest.param(p, marks=pytest.mark.chaos) for p in ("raylet", "head"))]
)
def test_a_part_is_killed_while_a_worker_stands_by(lab: ChaosLab, part: str):
    stands_by(lab)
    assert lab.signal(part, signal.SIGKILL)
    experiment = lab.submit()
    lab.recover()
    assert lab.finish(experiment) is State.SUCCEEDED
    lab.assert_sound(experiment)
    stands_by(lab)


def stands_by(lab: ChaosLab) -> None:
    wait_until(lambda: len(lab.processes("worker")) == 1, "a worker on standby", seconds=120)
