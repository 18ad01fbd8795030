"""Studies in the dispatcher's tick: a fake cluster whose runs leave real predictions."""

import pytest

from service.cluster.base import Node
from service.cluster.in_memory import InMemoryCluster
from service.studies.store import StudyStore
from tests.support.studies.comparing import leave_predictions


@pytest.fixture
def cluster() -> InMemoryCluster:
    return InMemoryCluster(nodes=(Node("node-1", 4.0, 0.0, 4.0, 0.0),), steps_per_look=5, export=leave_predictions)


@pytest.fixture
def studies(database) -> StudyStore:
    return StudyStore(database)
