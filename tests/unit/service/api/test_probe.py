"""Readiness is asked for by anybody, as often as they like, and costs no more for it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.api import health
from service.api.health import Probe
from service.schemas.health import Readiness
from tests.support.waiting import wait_until


@pytest.fixture
def looks(monkeypatch):
    """Counts the looks; each waits until it is let go."""
    made, go = [], threading.Event()

    def look(store, settings):
        made.append(len(made))
        assert go.wait(20)
        return Readiness(ready=True, degraded=[str(len(made))], components={})

    monkeypatch.setattr(health, "readiness", look)
    return made, go


def test_many_who_ask_at_once_cause_one_look(looks):
    made, go = looks
    probe = Probe(None, None)
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(probe.look) for _ in range(20)]
        go.set()
        assert {one.result().degraded[0] for one in asked} == {"1"}
    assert len(made) == 1


def test_while_somebody_looks_others_get_what_was_seen_before(looks, monkeypatch):
    made, go = looks
    go.set()
    probe = Probe(None, None)
    assert probe.look().degraded == ["1"]
    monkeypatch.setattr(health, "FRESH_SECONDS", 0.0)
    go.clear()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(probe.look)
        wait_until(lambda: len(made) == 2, "the second look")
        assert probe.look().degraded == ["1"]
        go.set()
        assert slow.result().degraded == ["2"]
    assert len(made) == 2
