"""What many tests share: settings of their own and a migrated database."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from service.database.engine import Database
from service.experiments.store import ExperimentStore
from service.settings import Settings
from tests import distribution
from tests.support.postgresql import REQUIRED, PostgresServer, postgres_server, programs

# Triton reads it at its first import: without a GPU its kernels run in its interpreter, on the CPU.
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")

# No deadline: a machine that stands still for 0.2 s, as one of many on one host does, would fail a test at random.
# The same examples at every run, so that nobody's change is refused by chance; `--hypothesis-profile=drawn` for others.
hypothesis.settings.register_profile("drawn", deadline=None)
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True)
hypothesis.settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins."""
    distribution.arrange(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Tests that share what is dear to start share a process."""
    return distribution.scheduler(config, log)


@pytest.fixture(autouse=True)
def _settings_stay_as_they_are() -> Iterator[None]:
    """Fails a test that leaves a variable for `Settings` behind, as `mlflow.set_tracking_uri` does."""
    before = _variables_of_settings()
    yield
    assert _variables_of_settings() == before


def _variables_of_settings() -> dict[str, str]:
    read = (Settings.model_config["env_prefix"], "MLFLOW_TRACKING_URI", "RAY_ADDRESS")
    return {name: value for name, value in os.environ.items() if name.startswith(read)}


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the whole run."""
    bin_folder = programs()
    if bin_folder is None:
        if REQUIRED:
            pytest.fail("CBAM_REQUIRE_POSTGRES is set, and PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed; on Debian and Ubuntu: apt install postgresql")
    with postgres_server(bin_folder) as server:
        yield server


@pytest.fixture(scope="session")
def migrated(postgresql: PostgresServer) -> str:
    """The name of a database that has the newest schema: to copy it is faster than to migrate anew."""
    postgresql.execute("CREATE DATABASE migrated")
    database = Database(postgresql.url("migrated"))
    database.migrate()
    database.close()
    return "migrated"


_made_at: dict[Path, int] = {}


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file that has the newest schema: to copy it takes a seventh of the time of a migration."""
    file = tmp_path_factory.mktemp("migrated") / "cbam.db"
    database = Database(f"sqlite:///{file}")
    database.migrate()
    database.close()
    _made_at[file] = file.stat().st_mtime_ns
    return file


@pytest.fixture
def sqlite_url(tmp_path: Path, migrated_file: Path) -> str:
    """A database of the newest schema in a file of the test's own."""
    file = tmp_path / "home" / "cbam.db"
    file.parent.mkdir()
    shutil.copyfile(migrated_file, file)
    assert migrated_file.stat().st_mtime_ns == _made_at[migrated_file], "a test has written into the file of all others"
    return f"sqlite:///{file}"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """SQLite; where both databases must behave alike, a conftest.py further down says so."""
    return sqlite_url


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Settings:
    """Settings whose every file is below the test's own folder, and that wait for nothing; a parameter changes some."""
    return Settings(
        home=tmp_path / "home",
        database_url=database_url,
        data_roots=(tmp_path / "data",),
        retry_backoff_seconds=0.0,
        dead_after_seconds=0.0,
        dead_after_looks=1,
        cancel_grace_seconds=5.0,
        lease_seconds=600.0,  # a machine that is held up for seconds must not depose a test's dispatcher
        **getattr(request, "param", {}),
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """A migrated database."""
    database = Database(settings.database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> ExperimentStore:
    """The store over that database."""
    return ExperimentStore(database)
