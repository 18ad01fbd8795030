"""The first container of a cluster: brings the database up to date, waits for one that is just starting."""

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import OperationalError

from service.database import migrate
from service.database.engine import Database
from tests.support.ports import free_port


def test_a_new_database_gets_its_tables(tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'new.db'}"
    monkeypatch.setenv("CBAM_DATABASE_URL", url)
    migrate.main()
    migrate.main()  # and once more, at the next start
    database = Database(url)
    assert inspect(database.engine).has_table("experiments")
    database.close()


def test_a_database_that_stays_away_is_an_error_in_the_end(monkeypatch):
    monkeypatch.setattr(migrate, "PAUSE_SECONDS", 0.05)
    database = Database(f"postgresql://cbam@127.0.0.1:{free_port()}/cbam")
    with pytest.raises(OperationalError):
        migrate.migrate(database, patience_seconds=0.2)
    database.close()
