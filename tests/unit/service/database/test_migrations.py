"""An older schema with rows in it becomes the newest one, and back; nothing that both can hold is lost."""

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from service.database.engine import migrations_config
from service.database.models.base import Base
from service.experiments.store import ExperimentStore
from tests.support.specs import spec

NOT_COMPARABLE = {"ix_experiments_queue"}  # Alembic cannot read SQLite's `priority DESC` back


@pytest.fixture
def move(database):
    """Takes the database to a version, up or down."""

    def move(verb, version: str) -> None:
        config = migrations_config()
        with database.engine.execution_options(cbam_writes=True).connect() as connection, connection.begin():
            config.attributes["connection"] = connection
            verb(config, version)

    return move


def test_a_key_of_the_first_schema_is_the_local_users_afterwards(database, move):
    store = ExperimentStore(database)
    row, _ = store.submit(spec(), key="monday", body_hash="a")
    move(command.downgrade, "0001")
    with database.writing() as session:
        assert session.execute(text("SELECT key, experiment_id FROM idempotency_keys")).one_or_none() is None
        session.execute(
            text("INSERT INTO idempotency_keys VALUES ('monday', 'a', :id, :at)"),
            {"id": row.id, "at": row.created_at.replace(tzinfo=None)},
        )
    move(command.upgrade, "head")
    again, is_new = store.submit(spec(), key="monday", body_hash="a")
    assert (again.id, is_new) == (row.id, False)
    other, is_new = store.submit(spec(), owner="ada", key="monday", body_hash="a")
    assert (other.id != row.id, is_new) == (True, True)


def test_an_attempt_from_before_its_gang_was_written_down_has_none(database, move, dispatcher_store):
    store = ExperimentStore(database)
    row, _ = store.submit(spec())
    dispatcher_store.claim(dispatcher_store.queue()[0], 1, gang="another-1")
    assert [attempt.gang for attempt in store.attempts(row.id)] == ["another-1"]
    move(command.downgrade, "0005")
    move(command.upgrade, "head")
    (attempt,) = store.attempts(row.id)
    assert (attempt.number, attempt.workers, attempt.gang) == (1, 1, None)


def test_a_key_goes_with_its_experiment_only_before_the_ninth_schema(database, move):
    store = ExperimentStore(database)
    kept, _ = store.submit(spec(), key="kept", body_hash="a")
    gone, _ = store.submit(spec(), key="gone", body_hash="a")
    with database.writing() as session:
        session.execute(text("DELETE FROM experiments WHERE id = :id"), {"id": gone.id})
    move(command.downgrade, "0007")
    with database.writing() as session:
        assert session.scalars(text("SELECT key FROM idempotency_keys")).all() == ["kept"]
    move(command.upgrade, "head")
    assert store.submit(spec(), key="kept", body_hash="a")[0].id == kept.id
    with database.writing() as session:
        session.execute(text("DELETE FROM experiments"))
        assert session.scalars(text("SELECT key FROM idempotency_keys")).all() == ["kept"]


def test_the_migrations_make_what_the_models_say(database):
    options = {"include_object": lambda _, name, *__: name not in NOT_COMPARABLE}
    with database.engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
    assert difference == []
