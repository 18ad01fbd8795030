"""Backup and restore of the database, whole, refused while in use, never the end of what was there."""

import json
import sqlite3
import zipfile
from threading import Thread

import pytest
from alembic import command
from sqlalchemy import text

from service.database.backup import check_backup, make_backup, restore_backup
from service.database.backup_checks import known_revisions
from service.database.backup_engines import kept_database
from service.database.engine import Database, migrations_config
from service.database.lease import Leadership
from service.dispatcher.store import DispatcherStore
from service.domain.states import Move, State
from service.errors import BackupError
from service.experiments.store import ExperimentStore, Filter
from tests.support.specs import spec


@pytest.fixture
def busy(store, database):
    """Two experiments, one of them running."""
    for name in ("first", "second"):
        store.submit(spec(name=name))
    leadership = Leadership(database, holder="test", seconds=60)
    leadership.renew()
    dispatcher_store = DispatcherStore(database, leadership, backoff_seconds=0)
    dispatcher_store.claim(dispatcher_store.queue()[0], 1)
    ((row, _),) = dispatcher_store.live()
    dispatcher_store.apply(row, Move(State.RUNNING))
    return store


def names(url):
    database = Database(url)
    try:
        return sorted(row.name for row in ExperimentStore(database).page(Filter())[0])
    finally:
        database.close()


def test_a_backup_made_in_use_brings_back_that_moment(busy, database, settings, tmp_path):
    file = tmp_path / "backup.zip"
    made = make_backup(settings.database_url, file)  # the store's connections are open
    assert made.problems == []
    assert (made.rows["experiments"], made.rows["attempts"]) == (2, 1)
    assert file.stat().st_mode & 0o077 == 0
    busy.submit(spec(name="third"))
    database.close()
    restored, kept = restore_backup(settings.database_url, file, keep_in=tmp_path / "kept")
    assert restored == made
    assert names(settings.database_url) == ["first", "second"]
    restore_backup(settings.database_url, kept, keep_in=tmp_path / "kept-2")  # and what was there comes back
    assert names(settings.database_url) == ["first", "second", "third"]


def test_nothing_is_restored_while_anything_is_connected(busy, database, settings, tmp_path):
    file = tmp_path / "backup.zip"
    make_backup(settings.database_url, file)
    with database.reading() as session:
        session.execute(text("SELECT 1"))
        with pytest.raises(BackupError, match="cbam down"):
            restore_backup(settings.database_url, file, keep_in=tmp_path)
    with pytest.raises(BackupError, match="cbam down"):  # an idle connection is one, too
        restore_backup(settings.database_url, file, keep_in=tmp_path)
    assert len(busy.page(Filter())[0]) == 2


def test_what_a_service_accepts_that_starts_meanwhile_stays(busy, database, settings, tmp_path, monkeypatch):
    file = tmp_path / "backup.zip"
    make_backup(settings.database_url, file)
    database.close()

    def start_service():
        starting = Database(settings.database_url)
        starting.migrate()
        ExperimentStore(starting).submit(spec(name="accepted meanwhile"))
        starting.close()

    kind = type(kept_database(settings.database_url))
    load = kind.load
    service = Thread(target=start_service)

    def load_late(kept, source, rows):
        service.start()
        service.join(timeout=1)  # time enough to be accepted, where nothing stands in its way
        load(kept, source, rows)

    monkeypatch.setattr(kind, "load", load_late)
    restore_backup(settings.database_url, file, keep_in=tmp_path / "kept")
    service.join()
    assert names(settings.database_url) == ["accepted meanwhile", "first", "second"]


def test_a_schema_of_a_newer_program_is_refused(busy, database, settings, tmp_path):
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    made = make_backup(settings.database_url, tmp_path / "backup.zip")
    assert "newer" in made.problems[0]
    with pytest.raises(BackupError, match="newer"):
        check_backup(tmp_path / "backup.zip")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        ("UPDATE experiments SET state = 'PAUSED' WHERE name = 'second'", "last event"),
        ("UPDATE attempts SET ended_at = started_at", "without an attempt"),
    ],
)
def test_rows_that_contradict_each_other_are_told_and_not_restored(busy, database, settings, tmp_path, harm, told):
    with database.writing() as session:
        session.execute(text(harm))
    made = make_backup(settings.database_url, tmp_path / "backup.zip")
    assert any(told in problem for problem in made.problems)
    with pytest.raises(BackupError, match=told):
        restore_backup(settings.database_url, tmp_path / "backup.zip", keep_in=tmp_path)


def test_a_backup_with_one_byte_changed_is_refused(busy, settings, tmp_path):
    whole, damaged = tmp_path / "backup.zip", tmp_path / "damaged.zip"
    make_backup(settings.database_url, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(damaged, "w") as target:
        target.writestr("manifest.json", source.read("manifest.json"))
        data = bytearray(source.read("database"))
        data[len(data) // 2] ^= 1
        target.writestr("database", bytes(data))
    with pytest.raises(BackupError, match="damaged"):
        check_backup(damaged)


@pytest.mark.parametrize("content", [b"", b"no zip", "other"])
def test_what_is_no_backup_is_one_clear_error(settings, tmp_path, content):
    file = tmp_path / "file.zip"
    if content == "other":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("manifest.json", json.dumps({"format": 1}))
    else:
        file.write_bytes(content)
    with pytest.raises(BackupError, match=r"file\.zip"):
        restore_backup(settings.database_url, file, keep_in=tmp_path)


def test_the_other_kind_of_database_is_refused(busy, settings, tmp_path):
    make_backup(settings.database_url, tmp_path / "backup.zip")
    other = "postgresql://x@127.0.0.1:1/x" if "sqlite" in settings.database_url else f"sqlite:///{tmp_path / 'x.db'}"
    with pytest.raises(BackupError, match="CBAM_DATABASE_URL"):
        restore_backup(other, tmp_path / "backup.zip", keep_in=tmp_path)


def test_a_missing_pg_dump_is_named(settings, database, tmp_path, monkeypatch):
    if "sqlite" in settings.database_url:
        pytest.skip("SQLite needs no programs")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackupError, match="pg_dump is not installed"):
        make_backup(settings.database_url, tmp_path / "backup.zip")


def test_a_damaged_file_is_kept_as_it_is_and_replaced(busy, database, settings, tmp_path):
    if "sqlite" not in settings.database_url:
        pytest.skip("only a file can be damaged")
    make_backup(settings.database_url, tmp_path / "backup.zip")
    database.close()
    file = settings.home / "cbam.db"
    file.write_bytes(b"no database at all" * 1000)
    with pytest.raises(BackupError, match="cannot be read"):
        make_backup(settings.database_url, tmp_path / "second.zip")
    _, kept = restore_backup(settings.database_url, tmp_path / "backup.zip", keep_in=tmp_path / "kept")
    assert kept.read_bytes().startswith(b"no database")
    assert names(settings.database_url) == ["first", "second"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("sound_bytes", [100, 3 * 4096], ids=["the header", "some pages"])
def test_a_file_of_which_a_part_is_left_is_kept_and_replaced(busy, database, settings, tmp_path, sound_bytes):
    """SQLite opens and locks it, and finds only later that it is damaged."""
    if "sqlite" not in settings.database_url:
        pytest.skip("only a file can be damaged")
    make_backup(settings.database_url, tmp_path / "backup.zip")
    database.close()
    file = settings.home / "cbam.db"
    content = file.read_bytes()
    file.write_bytes(content[:sound_bytes] + b"\xa5" * (len(content) - sound_bytes))
    _, kept = restore_backup(settings.database_url, tmp_path / "backup.zip", keep_in=tmp_path / "kept")
    assert kept.exists()
    assert names(settings.database_url) == ["first", "second"]


def test_a_database_that_is_not_there_cannot_be_backed_up_but_restored(busy, settings, tmp_path):
    if "sqlite" not in settings.database_url:
        pytest.skip("a PostgreSQL database is made by its operator")
    make_backup(settings.database_url, tmp_path / "backup.zip")
    new = f"sqlite:///{tmp_path / 'new' / 'cbam.db'}"
    with pytest.raises(BackupError, match="there is no database"):
        make_backup(new, tmp_path / "second.zip")
    assert restore_backup(new, tmp_path / "backup.zip", keep_in=tmp_path)[1] is None
    assert names(new) == ["first", "second"]
    assert (tmp_path / "new" / "cbam.db").stat().st_mode & 0o077 == 0
    with sqlite3.connect(tmp_path / "new" / "cbam.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_backup_of_an_older_schema_is_brought_to_the_newest(busy, database, settings, tmp_path):
    file = tmp_path / "old.zip"
    with database.engine.execution_options(cbam_writes=True).connect() as connection, connection.begin():
        config = migrations_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "0003")
    assert make_backup(settings.database_url, file).revision == "0003"
    database.close()
    newest = Database(settings.database_url)
    newest.migrate()
    newest.close()
    restore_backup(settings.database_url, file, keep_in=tmp_path)
    assert names(settings.database_url) == ["first", "second"]
    newest = Database(settings.database_url)
    with newest.reading() as session:
        assert session.scalar(text("SELECT version_num FROM alembic_version")) == known_revisions()[0]
        assert session.scalar(text("SELECT count(*) FROM process_reports")) == 0
    newest.close()
