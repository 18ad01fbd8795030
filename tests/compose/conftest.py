"""One cluster for all: it is built once, broken and mended again and again, and gone at the end."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.client.client import Client
from service.domain.states import State
from service.schemas.experiments import ExperimentView
from tests.compose.containers import ComposeCluster, finish, remove_leftovers, some_epochs

KEPT = os.environ.get("CBAM_COMPOSE_KEEP")  # a folder: the cluster goes on running, for the next run of the tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here needs Docker, and minutes."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.compose)
            item.add_marker(pytest.mark.timeout(1500))


@pytest.fixture(scope="session")
def engine() -> None:
    """Docker answers, or this is no place for these tests."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode:
        pytest.fail("no Docker engine answers")


@pytest.fixture(scope="session")
def cluster(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeCluster]:
    """A running cluster with two workers of one CPU each."""
    folder = Path(KEPT) if KEPT else tmp_path_factory.mktemp("compose")
    cluster = ComposeCluster("cbam-test", folder, workers=2)
    if not cluster.env_file.exists():  # else it is the one that was kept
        remove_leftovers(cluster.name)
    try:
        cluster.script("build")
        print(f"\nMEASURED first start: {cluster.up():.1f} s")
        yield cluster
    finally:
        if not KEPT and cluster.env_file.exists():
            cluster.script("down", "--volumes")


@pytest.fixture(scope="session")
def client(cluster: ComposeCluster) -> Iterator[Client]:
    """The REST API from outside, with the admin's token."""
    with cluster.client() as client:
        yield client


@pytest.fixture(scope="session")
def undisturbed(client: Client) -> ExperimentView:
    """How the experiment ends when nobody does any harm."""
    experiment = client.submit(some_epochs())
    assert finish(experiment) is State.SUCCEEDED, experiment.view.message
    return experiment.view
