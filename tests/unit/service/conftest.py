"""A client of the real app, over a database of its own: tests that touch one run on SQLite and PostgreSQL."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.cli.main import main
from service.cluster.in_memory import InMemoryCluster
from service.database.engine import Database
from service.database.lease import Leadership
from service.dispatcher.dispatcher import Dispatcher
from service.dispatcher.store import DispatcherStore
from service.settings import Settings
from service.testing import FakeClock
from tests.support.postgresql import PostgresServer

SQL = (
    "databases",
    "store",
    "lease",
    "lists",
    "backup",
    "dispatcher",
    "damaged_specs",
    "fair_share",
    "webhooks",
    "outages",
    "pruning",
    "disk_usage",
    "storage_marker",
    "study_store",
    "sweep_controller",
)


ONE_DATABASE = ("cli", "client", "console", "preview")
"""Folders whose tests are of what speaks HTTP: the tests of the API try what answers them over both databases."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In the quick tier PostgreSQL is under the tests of SQL itself; `--all` has it under all but those of clients."""
    here, files = Path(__file__).parent, {f"test_{name}.py" for name in SQL}
    left_out = set[pytest.Item]()
    for item in items:
        if here not in item.path.parents or not item.get_closest_marker("postgresql"):
            continue
        if item.path.relative_to(here).parts[0] in ONE_DATABASE:
            left_out.add(item)
        elif item.path.name not in files:
            item.add_marker(pytest.mark.slow)
    config.hook.pytest_deselected(items=[*left_out])
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database of either kind, without any rows."""
    if request.param == "sqlite":
        yield request.getfixturevalue("sqlite_url")
        return
    server: PostgresServer = request.getfixturevalue("postgresql")
    with server.database(template=request.getfixturevalue("migrated")) as url:
        yield url


@pytest.fixture
def http(settings: Settings) -> Iterator[TestClient]:
    """The app in this process, as a client on loopback sees it."""
    with TestClient(create_app(settings), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def leader(http: TestClient, settings: Settings) -> DispatcherStore:
    """What moves the app's experiments in the place of a dispatcher."""
    database = http.app.state.store.database  # type: ignore[attr-defined]
    leadership = Leadership(database, holder="test", seconds=60)
    leadership.renew()
    return DispatcherStore(database, leadership, backoff_seconds=0)


@pytest.fixture
def dispatcher_store(database: Database) -> DispatcherStore:
    """What moves experiments in the place of a dispatcher."""
    leadership = Leadership(database, holder="dispatcher " + "a-long-host-name." * 10, seconds=600)
    leadership.renew()
    return DispatcherStore(database, leadership, backoff_seconds=0)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cluster() -> InMemoryCluster:
    return InMemoryCluster()


@pytest.fixture
def dispatcher(database: Database, cluster: InMemoryCluster, settings: Settings, clock: FakeClock) -> Dispatcher:
    return Dispatcher(database, cluster, settings, clock=clock)


@pytest.fixture
def cbam(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[object, str, str]]:
    """Runs the command; gives exit code, stdout, stderr."""

    def run(*words: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["cbam", *map(str, words)])
        with pytest.raises(SystemExit) as leaving:
            main()
        out, err = capsys.readouterr()
        return leaving.value.code or 0, out, err

    return run
