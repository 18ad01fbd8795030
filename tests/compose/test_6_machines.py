"""A further machine joins: an overlay network, one folder for all, and workers that come with their own Compose file.

The machines are one here: what is tried is that the files, the network and the joining are right.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain.states import State
from tests.compose.containers import ROOT, ComposeCluster, docker, finish, remove_leftovers, some_epochs

FAR = "cbam-test-far"


@pytest.fixture
def swarm(engine: None) -> Iterator[None]:
    """Docker's swarm mode, of one machine."""
    if docker("info", "--format={{.Swarm.LocalNodeState}}").strip() != "inactive":
        pytest.skip("this machine is part of a swarm already")
    docker("swarm", "init", "--advertise-addr=127.0.0.1")
    yield
    docker("swarm", "leave", "--force")


@pytest.fixture
def first_machine(swarm: None, tmp_path: Path) -> Iterator[ComposeCluster]:
    """The cluster with one worker of its own, open to workers of others."""
    storage = tmp_path / "storage"
    storage.mkdir()
    os.chown(storage, 1000, 1000)
    where = {"TYPE": "none", "OPTIONS": "bind", "DEVICE": str(storage)}
    settings = {f"CBAM_STORAGE_{key}": value for key, value in where.items()}
    cluster = ComposeCluster("cbam-test-3", tmp_path, workers=1, override="docker/machines.yml", **settings)
    for name in (FAR, cluster.name):
        remove_leftovers(name)
    try:
        cluster.script("build")
        cluster.up()
        yield cluster
    finally:
        if cluster.env_file.exists():
            cluster.script("down", "--volumes")


@pytest.fixture
def further_machine(first_machine: ComposeCluster) -> Iterator[None]:
    """A worker that docker/worker.yml brings."""
    files = {"COMPOSE_FILE": "docker/worker.yml", "COMPOSE_PROJECT_NAME": FAR}
    environment = first_machine.environment | files | {"CBAM_NETWORK": f"{first_machine.name}_cluster"}
    compose = (ROOT / "scripts/compose").as_posix()
    subprocess.run([compose, "only", "up", "--detach", "ray-worker"], cwd=ROOT, env=environment, check=True)
    yield
    subprocess.run([compose, "only", "down", "--volumes"], cwd=ROOT, env=environment, check=True)


def test_workers_of_a_further_machine_train_with_those_of_the_first(
    first_machine: ComposeCluster, further_machine: None
):
    with first_machine.client() as client:
        experiment = client.submit(some_epochs())
        assert finish(experiment) is State.SUCCEEDED, experiment.view.message
        assert len(set(client.attempts(experiment.id)[0].node_ids)) == 2
