"""The database connection: reading and writing transactions that mean the same on SQLite and PostgreSQL."""

import json
import math
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from service.database.outages import told_apart

BUSY_SECONDS = 30
POOL_SECONDS = 5  # for a connection to become free: whoever asks can ask again
ALONE_LOCK = 1807065220  # the first of the two numbers of locks on names
MIGRATION_LOCK = 1807065219  # PostgreSQL's number of the lock that everybody takes before the first other statement


class Database:
    """One engine. Every access is a short transaction, open for nothing but its own statements.

    OperationalError says that the database cannot be used now, whatever the driver calls it (`outages.py`).
    """

    def __init__(self, url: str) -> None:
        parsed = make_url(url)
        if parsed.drivername in ("postgresql", "postgres"):  # as everybody writes it; SQLAlchemy would take psycopg2
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            _make_private(parsed.database)
        self.engine = create_engine(
            parsed,
            pool_pre_ping=parsed.get_backend_name() != "sqlite",
            json_serializer=_strict_json,
            json_deserializer=_json_or_text,
            **({"pool_timeout": POOL_SECONDS} if parsed.database else {}),  # a database in memory has no pool
        )
        self.is_unwritable = False  # when it was last written to, or that was tried
        if parsed.get_backend_name() == "sqlite":
            _prepare_sqlite(self.engine)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads, and so never waits for a writer."""
        with told_apart(), Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that writes; on SQLite it takes the write lock at once, so that it cannot fail halfway."""
        engine = self.engine.execution_options(cbam_writes=True)
        try:
            with told_apart(), Session(engine, expire_on_commit=False) as session, session.begin():
                yield session
        except OperationalError:
            self.is_unwritable = True
            raise
        self.is_unwritable = False

    @contextmanager
    def writing_alone(self, what: str) -> Iterator[Session]:
        """A transaction that writes while nobody else writes `what`: for a limit, whose count must hold to the end."""
        with self.writing() as session:
            if self.engine.dialect.name == "postgresql":  # on SQLite there is one writer anyway
                lock = func.pg_advisory_xact_lock(ALONE_LOCK, func.hashtext(what))
                session.execute(select(lock))
            yield session

    def migrate(self) -> None:
        """Bring the schema to the newest version. Safe to call from several processes at once."""
        config = migrations_config()
        engine = self.engine.execution_options(cbam_writes=True)
        with told_apart(), engine.connect() as connection, connection.begin():
            _take_migration_lock(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()


def migrations_config() -> Config:
    """Alembic's configuration, which says where our migrations are."""
    config = Config()
    config.set_main_option("script_location", str(files("service.database") / "migrations"))
    return config


def _make_private(file: str) -> None:
    """Make the file for its owner alone, where it is not there; SQLite's journals have the same mode as their file."""
    if file == ":memory:" or file.startswith("file:"):
        return
    path = Path(file)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)


def _strict_json(value: object) -> str:
    """JSON as its standard has it: PostgreSQL refuses Python's NaN, so a number that is not finite becomes null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _json_or_text(stored: str | bytes) -> Any:
    """The value; where it was damaged by hand the text that it is, so that only who needs it finds it unusable."""
    try:
        return json.loads(stored)
    except (ValueError, RecursionError):
        return stored if isinstance(stored, str) else stored.decode(errors="replace")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _take_migration_lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")  # freed with the transaction


def _prepare_sqlite(engine: Engine) -> None:
    """WAL, so that readers and the writer do not wait for each other; and transactions that begin where we say so."""

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _entry: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # the driver's own BEGIN comes too late to be IMMEDIATE
        connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = FULL")  # a 201 must survive a power cut, not only a kill
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("cbam_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_wal(connection: sqlite3.Connection) -> None:
    """Keep the file's journal as WAL. Two that change a new file at once get SQLITE_BUSY whatever the busy_timeout:
    each holds the lock that the other waits for, and SQLite leaves it to them to ask again.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
