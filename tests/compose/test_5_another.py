"""A second cluster: it starts over the database of the first release, and its volume is soon full."""

from collections.abc import Iterator

import pytest

from service.client.client import Client
from service.domain.states import Reason, State
from tests.compose.containers import ComposeCluster, finish, reach_epoch, remove_leftovers
from tests.support.specs import spec_dict

OLD_ID = "0000000000000000000000old1"
FIRST_RELEASE = f"""
import json
import os
from alembic import command
from alembic.config import Config
from importlib.resources import files
from sqlalchemy import text
from service.database.engine import Database

database = Database(os.environ["CBAM_DATABASE_URL"])
config = Config()
config.set_main_option("script_location", str(files("service.database") / "migrations"))
with database.writing() as session:
    config.attributes["connection"] = session.connection()
    command.upgrade(config, "0001")
    session.execute(text('''
        INSERT INTO experiments (id, name, project, tags, owner, priority, passed, spec, state, desired, message,
            attempt, version, free_retries, charged_retries, progress, summary, tracking_closed,
            created_at, queued_at, ended_at)
        VALUES ('{OLD_ID}', 'old', 'tests', '{{}}', 'local', 0, 0, :spec, 'CANCELLED', 'cancel', '', 0,
            1, 0, 0, '{{}}', '{{}}', true, now(), now(), now())'''), {{"spec": json.dumps({spec_dict()!r})}})
"""
FILLER = "/var/lib/cbam/storage/filler"


@pytest.fixture(scope="module")
def another(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeCluster]:
    """One worker, a small volume, and a database at revision 0001 with one experiment in it before the first start."""
    folder = tmp_path_factory.mktemp("another")
    cluster = ComposeCluster("cbam-test-2", folder, workers=1, override="tests/compose/small-volume.yml")
    remove_leftovers(cluster.name)
    try:
        cluster.script("build")
        cluster.script("run", "migrate", "python", "-c", FIRST_RELEASE)
        cluster.up()
        yield cluster
    finally:
        if cluster.env_file.exists():
            cluster.script("down", "--volumes")


@pytest.fixture(scope="module")
def client(another: ComposeCluster) -> Iterator[Client]:
    """Its API."""
    with another.client() as client:
        yield client


def test_a_database_of_the_first_release_migrates_at_the_start(another: ComposeCluster, client: Client):
    assert [view.id for view in client.list()] == [OLD_ID]
    revision = "SELECT version_num FROM alembic_version"
    command = ["psql", "--username=postgres", "--tuples-only", f"--command={revision}", "cbam"]
    assert another.execute("db", *command).strip() != "0001"
    assert client.get(OLD_ID).state is State.CANCELLED


def test_a_full_volume_ends_the_experiment_with_its_reason_and_nothing_else(another: ComposeCluster, client: Client):
    train = {"epochs": 30, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    experiment = client.submit(spec_dict(train=train))
    reach_epoch(experiment, 1)
    another.execute("dispatcher", "dd", "if=/dev/zero", f"of={FILLER}", "bs=64k", check=False)
    assert finish(experiment) is State.FAILED
    assert experiment.view.reason is Reason.CHECKPOINT_ERROR
    assert client.submit(spec_dict()).cancel().id  # the service itself goes on
    another.execute("dispatcher", "rm", FILLER)
    client.retry(experiment.id)
    assert finish(experiment) is State.SUCCEEDED, experiment.view.message
    another.wait_until_well(another.containers("api") + another.containers("dispatcher"))
