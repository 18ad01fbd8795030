"""What many tests share: settings of their own and a migrated database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db import Database
from service.settings import Settings
from service.store import Store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose every file is below the test's own folder, and that wait for nothing."""
    return Settings(
        home=tmp_path / "home",
        data_roots=(tmp_path / "data",),
        retry_backoff_seconds=0.0,
        dead_after_seconds=0.0,
        dead_after_looks=1,
        cancel_grace_seconds=5.0,
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """A migrated SQLite database."""
    database = Database(settings.database_url)
    database.migrate()
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    """The store over that database."""
    return Store(database)
