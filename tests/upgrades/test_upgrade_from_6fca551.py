"""What commit 6fca551 left in its home folder serves the current code: its database, its checkpoint, its model.

Of the home that `README.md` here describes, every test unpacks a copy of its own, which is so as if it had been moved.
"""

import json
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from fastapi.testclient import TestClient

from cbam_core.spec import ExperimentSpec
from service.api.app import create_app
from service.auth.tokens import Tokens
from service.cluster.in_memory import InMemoryCluster
from service.database.engine import Database
from service.database.models.base import Base
from service.dispatcher.dispatcher import Dispatcher
from service.domain.roles import Role
from service.domain.states import State
from service.experiments.store import ExperimentStore
from service.schemas.auth import TokenRequest
from service.settings import Settings
from service.testing import FakeClock
from tests.support.dispatching import until
from tests.support.journals import logged
from tests.support.mlflow_server import MlflowServer
from workers.attempt import run
from workers.protocol.assignment import Assignment
from workers.protocol.outcome import Outcome
from workers.protocol.progress import Progress
from workers.protocol.stop import StopSignal
from workers.protocol.storage import ExperimentFolder

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

ARCHIVE = Path(__file__).with_name("home-6fca551.tar.xz")
FINISHED, PAUSED = "b2kmh631fph3", "t6qcq07c5448"
STEPS_PER_EPOCH, PAUSED_AT, STEPS = 45, 63, 135
TOP1_BEFORE_THE_PAUSE = 0.4197183098591549
NOT_COMPARABLE = {"ix_experiments_queue"}  # Alembic cannot read SQLite's `priority DESC` back


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The old home, in another place than where it was made."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "home"


@pytest.fixture
def settings(home: Path) -> Settings:
    """All that a user has to say who moves his home is where it is."""
    return Settings(home=home, database_url="", dead_after_seconds=0.0, dead_after_looks=1, lease_seconds=600.0)


@pytest.fixture
def old_specs(home: Path) -> dict[str, dict]:
    """The specs as the old code stored them, by experiment; read before anything touches the database."""
    with closing(sqlite3.connect(home / "cbam.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [("0006",)]
        return {name: json.loads(spec) for name, spec in connection.execute("SELECT id, spec FROM experiments")}


@pytest.fixture
def http(old_specs: dict, settings: Settings) -> Iterator[TestClient]:
    """The app over the old database, as the owner of all sees it. A token, since revoked, had closed the old server."""
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        assert client.get("/v1/experiments").status_code == 401
        tokens: Tokens = client.app.state.tokens  # type: ignore[attr-defined]
        _, secret = tokens.create(TokenRequest(name="local", role=Role.ADMIN), by="test")
        client.headers["Authorization"] = f"Bearer {secret}"
        yield client


@dataclass
class TrainingCluster(InMemoryCluster):
    """Its gangs train what they are told to, in this process, when they are first looked at."""

    seen: list[Progress] = field(default_factory=list)
    outcome: Outcome | None = None

    def _work(self, gang) -> None:
        if gang.outcome is not None:
            return
        launch = gang.launch
        assignment = Assignment(
            launch.key.experiment_id,
            launch.key.attempt,
            launch.token,
            launch.spec,
            str(launch.storage),
            tracking_uri=launch.tracking_uri,
            semantics=launch.semantics,
        )
        self.outcome = gang.outcome = run(assignment, stop=StopSignal(), report=self.seen.append)
        gang.step = gang.outcome.step


def resume(http: TestClient, settings: Settings) -> TrainingCluster:
    """Resume the paused experiment, and have it dispatched until it has succeeded; what its gang did."""
    assert http.post(f"/v1/experiments/{PAUSED}/resume").status_code == 202
    cluster = TrainingCluster()
    with closing(Database(settings.database_url)) as database:
        until(
            Dispatcher(database, cluster, settings, clock=FakeClock()),
            ExperimentStore(database),
            PAUSED,
            State.SUCCEEDED,
        )
    return cluster


def items(http: TestClient, path: str, **parameters: str) -> list[dict]:
    """One page of what the server has there."""
    return http.get(f"/v1/{path}", params=parameters).json()["items"]


def holds(new: object, old: object) -> bool:
    """Whether everything that was there is there still; fields may have come to it."""
    if isinstance(old, dict) and isinstance(new, dict):
        return all(name in new and holds(new[name], value) for name, value in old.items())
    return new == old


def test_the_old_database_is_migrated_and_served(http, old_specs):
    found = {row["id"]: row for row in items(http, "experiments")}
    assert {name: row["state"] for name, row in found.items()} == {FINISHED: "SUCCEEDED", PAUSED: "PAUSED"}
    assert {row["semantics"] for row in found.values()} == {1}
    assert found[PAUSED]["tags"] == {"paper": "cbam", "when": "before"}
    assert found[PAUSED]["actions"] == ["cancel", "resume"]
    for filters in ({"tag": "when=before"}, {"tag": "paper=cbam", "state": "PAUSED", "backbone": "cifar_resnet20"}):
        assert [row["id"] for row in items(http, "experiments", **filters)] == [PAUSED]
    shown = {name: http.get(f"/v1/experiments/{name}").json() for name in found}
    assert old_specs.keys() == shown.keys()
    for name, spec in old_specs.items():
        assert holds(shown[name]["spec"], spec)
        assert holds(ExperimentSpec.model_validate(spec).model_dump(mode="json"), spec), "it can run again"
    assert (shown[PAUSED]["progress"]["step"], shown[PAUSED]["metrics"]["val/top1"]) == (63, TOP1_BEFORE_THE_PAUSE)

    began = ["QUEUED", "STARTING", "RUNNING"]
    for name, ended in {FINISHED: ["SUCCEEDED"], PAUSED: ["PAUSING", "PAUSED"]}.items():
        of_it = f"experiments/{name}"
        assert [event["to_state"] for event in items(http, f"{of_it}/events")] == began + ended
        assert [attempt["number"] for attempt in items(http, f"{of_it}/attempts")] == [1]
        assert "on digits: attempt 1, rank 0 of 1 on cpu" in http.get(f"/v1/{of_it}/logs").text
        assert "train/loss" in http.get(f"/v1/{of_it}/metrics").text
    (hook,) = items(http, "webhooks")
    assert (hook["url"], hook["states"], hook["project"]) == ("http://127.0.0.1:9/told", ["SUCCEEDED"], "upgrade")
    tokens = {token["name"]: token["revoked_at"] is not None for token in items(http, "tokens")}
    assert tokens == {"ada": True, "local": False}
    options = {"include_object": lambda _, name, *__: name not in NOT_COMPARABLE}
    with http.app.state.store.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []


def test_the_paused_experiment_goes_on_from_its_checkpoint(http, settings):
    folder = ExperimentFolder(settings.storage_root, PAUSED)
    told_before = folder.journal.read_bytes()
    cluster = resume(http, settings)

    assert cluster.outcome is not None
    summary = cluster.outcome.summary
    assert summary["resumed_from_step"] == PAUSED_AT
    assert (summary["train_images"], summary["val_images"], summary["test_images"]) == (1442, 355, None)
    assert not [name for name in cluster.outcome.metrics if name.startswith("test")], "val is what it was: held out"
    steps = [progress.step for progress in cluster.seen if progress.phase == "training"]
    assert steps == [*range(PAUSED_AT + 1, STEPS + 1)]
    first = next(progress for progress in cluster.seen if progress.phase == "training")
    assert (first.epoch, first.metrics["val/top1"]) == (PAUSED_AT // STEPS_PER_EPOCH, TOP1_BEFORE_THE_PAUSE)
    assert folder.journal.read_bytes().startswith(told_before)
    losses = {step: loss for (name, step), loss in logged(folder).items() if name == "train/loss"}
    assert [*losses] == [*range(1, STEPS + 1)]
    assert losses[PAUSED_AT + 1] == pytest.approx(losses[PAUSED_AT], abs=0.2), "a new network has 2.3"

    shown = http.get(f"/v1/experiments/{PAUSED}").json()
    assert (shown["state"], shown["attempt"]) == ("SUCCEEDED", 2)
    assert shown["metrics"]["val/top1"] > 0.6
    attempts = items(http, f"experiments/{PAUSED}/attempts")
    assert [(one["number"], one["resumed_from_step"], one["last_step"]) for one in attempts] == [
        (1, None, PAUSED_AT),
        (2, PAUSED_AT, STEPS),
    ]
    (hook,) = items(http, "webhooks")
    told = items(http, f"webhooks/{hook['id']}/deliveries")
    assert {delivery["experiment_id"] for delivery in told} == {FINISHED, PAUSED}


def test_the_logged_model_loads_and_answers_as_it_did(home):
    import mlflow

    from workers.classifier import load_classifier
    from workers.data.datasets.digits import load_digits

    (folder,) = home.glob("mlflow/artifacts/1/models/m-*/artifacts")
    model = mlflow.pytorch.load_model(str(folder))
    recorded = json.loads(ExperimentFolder(home / "storage", FINISHED).attempt(1).result.read_text())["metrics"]
    test = load_digits().test
    with torch.no_grad():
        scores = model(test.images / 255)
    assert scores.shape == (355, 10)
    top1 = (scores.argmax(dim=1) == test.labels).float().mean().item()
    assert top1 == pytest.approx(recorded["val/top1"], abs=0.003), "one image of 355 may tip over"

    predicted = mlflow.pyfunc.load_model(str(folder)).predict((test.images[:16] / 255).numpy())
    torch.testing.assert_close(torch.from_numpy(predicted), scores[:16], rtol=1e-4, atol=1e-4)

    anew, shape = load_classifier(ExperimentFolder(home / "storage", FINISHED).weights)
    assert shape == (1, 8, 8)
    made = {name: type(module) for name, module in anew.named_modules()}
    assert {name: type(module) for name, module in model.named_modules()} == made
    with torch.no_grad():
        torch.testing.assert_close(anew(test.images / 255), scores)


@pytest.mark.slow
def test_the_paused_experiment_goes_on_in_its_mlflow_run(http, home, settings):
    from mlflow import MlflowClient

    server = MlflowServer(home / "mlflow")
    server.start()
    try:
        resume(http, settings.model_copy(update={"mlflow_tracking_uri": server.uri}))
        client = MlflowClient(server.uri)
        project = client.get_experiment_by_name("upgrade")
        runs = {run.info.run_name: run for run in client.search_runs([project.experiment_id])}
        before = http.get(f"/v1/experiments/{PAUSED}").json()["mlflow_run_id"]
        assert {name: run.info.status for name, run in runs.items()} == {"finished": "FINISHED", "paused": "FINISHED"}
        assert runs["paused"].info.run_id == before
        history = client.get_metric_history(before, "train/loss")
        assert [value.step for value in history] == [*range(1, STEPS + 1)]
        (output,) = runs["paused"].outputs.model_outputs
        assert client.get_logged_model(output.model_id).status == "READY"
    finally:
        server.stop()
