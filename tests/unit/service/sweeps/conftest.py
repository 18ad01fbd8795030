"""Sweeps in the dispatcher's tick: a fake cluster whose runs report what their spec says."""

from collections.abc import Iterator

import pytest

from service.cluster.base import Node
from service.cluster.in_memory import InMemoryCluster
from service.dispatcher.dispatcher import Dispatcher
from service.studies.store import StudyStore
from tests.support.studies.sweeping import report


@pytest.fixture
def cluster() -> InMemoryCluster:
    return InMemoryCluster(nodes=(Node("node-1", 4.0, 0.0, 4.0, 0.0),), steps_per_look=5, metrics=report())


@pytest.fixture
def dispatcher(database, cluster, settings, clock) -> Iterator[Dispatcher]:
    made = Dispatcher(database, cluster, settings, clock=clock)
    yield made
    made.studies.close()


@pytest.fixture
def studies(database) -> StudyStore:
    return StudyStore(database)
