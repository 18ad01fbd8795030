"""What the service writes into files is whole or absent, whenever the power goes, and stays once it was told."""

import sqlite3
from contextlib import closing

import pytest

from service.auth.tokens import Tokens
from service.database.backup import check_backup, make_backup
from service.database.backup_engines import SqliteFile
from service.database.engine import Database
from service.stack.record import StackRecord, load, save
from service.stack.settings import StackSettings
from tests.support.forgetful_disk import ForgetfulDisk


@pytest.fixture
def home(tmp_path):
    return tmp_path / "disk"


@pytest.fixture
def disk(home, monkeypatch):
    disk = ForgetfulDisk(home, monkeypatch)
    yield disk
    disk.look = None
    disk.close()


def test_a_backup_that_was_made_stays(disk, home, tmp_path):
    url = f"sqlite:///{tmp_path / 'cbam.db'}"
    Database(url).migrate()
    made = make_backup(url, home / "backups" / "cbam.zip")
    for image in disk.lose_power():
        assert check_backup(image / "backups" / "cbam.zip") == made


@pytest.fixture
def database(tmp_path, home):
    """One to be restored, beside a log of the one that was there."""
    home.mkdir()
    source = tmp_path / "source"
    with closing(sqlite3.connect(source)) as connection:
        connection.execute("CREATE TABLE new (id)")
    (home / "cbam.db").write_bytes(b"the old one")
    (home / "cbam.db-wal").write_bytes(b"its log")
    return source


def test_a_restored_database_never_stands_beside_the_log_of_the_old_one(database, disk, home):
    def look(image):
        left = (image / "cbam.db").read_bytes()
        assert left in (b"the old one", database.read_bytes())
        assert left == b"the old one" or not (image / "cbam.db-wal").exists()

    disk.look = look
    kept = SqliteFile(home / "cbam.db").copy_aside(home / "backups" / "before.damaged")
    SqliteFile(home / "cbam.db").load(database, {})
    for image in disk.lose_power():
        assert (image / kept.relative_to(home)).read_bytes() == b"the old one"
        assert (image / "cbam.db").read_bytes() == database.read_bytes()


def test_what_the_stack_has_started_stays_known(disk, home):
    disk.look = lambda image: load(image) and None
    for port in (1, 2):
        save(home, StackRecord(stack_id="s", ports={"api": port}))
        for image in disk.lose_power():
            assert load(image) == StackRecord(stack_id="s", ports={"api": port})


def test_secrets_stay(disk, home, tmp_path):
    token = StackSettings(home=home).ray_token()
    database = Database(f"sqlite:///{tmp_path / 'cbam.db'}")
    database.migrate()
    Tokens(database).bootstrap(home / "admin_token")
    database.close()
    for image in disk.lose_power():
        assert (image / "ray_token").read_text() == token
        assert (image / "admin_token").read_text() == (home / "admin_token").read_text() != ""
