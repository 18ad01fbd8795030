"""How each kind of database is copied while it is used, and replaced while it is not."""

import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.pool import NullPool, StaticPool

from service.database.backup_checks import problems_of, revision_of, rows_of, tables_of
from service.database.engine import MIGRATION_LOCK
from service.errors import BackupError
from workers.protocol.storage import make_folder, sync_file, sync_folder

BUSY = "something uses the database; stop the service first (`cbam down`), then restore"
DUMP = ("--format=custom", "--no-owner", "--no-privileges", "--no-password")
LEAVING_SECONDS = 2.0
LOAD = ("--clean", "--if-exists", "--no-owner", "--no-privileges", "--no-password", "--single-transaction")


class Damaged(BackupError):
    """The database is damaged."""


@dataclass(frozen=True)
class Seen:
    """What one look at a database says."""

    revision: str | None
    rows: dict[str, int]
    problems: list[str]


class Kept(Protocol):
    """A database that can be backed up and restored."""

    kind: str

    def dump(self, target: Path) -> Seen:
        """Copy it, as it was at one moment, and say what the copy holds."""
        ...

    def at_rest(self) -> AbstractContextManager[None]:
        """Hold it: who comes meanwhile waits, and finds what was restored. Raises BackupError where it is used."""
        ...

    def load(self, source: Path, rows: Mapping[str, int]) -> None:
        """Replace it by what `dump` wrote: all or nothing. `rows` names the tables that come."""
        ...

    def look(self) -> Seen:
        """What it holds now."""
        ...

    def is_empty(self) -> bool:
        """Whether there is nothing of the service's in it."""
        ...

    def copy_aside(self, target: Path) -> Path | None:
        """Keep its file as it is, where it is a file."""
        ...


def kept_database(url: str) -> Kept:
    """The database of a URL. Raises BackupError where it is of a kind that is not backed up."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return SqliteFile(Path(parsed.database))
    if parsed.get_backend_name() in ("postgresql", "postgres"):
        return Postgresql(parsed.set(drivername="postgresql+psycopg"))
    raise BackupError(f"{parsed.get_backend_name()} is not backed up by `cbam backup`")


class SqliteFile:
    """A SQLite file, by the library's own online backup."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: sqlite3.Connection | None = None
        self._later = ExitStack()

    def dump(self, target: Path) -> Seen:
        """Copy the pages, and check the copy."""
        if not self.path.exists():
            raise BackupError(f"there is no database at {self.path}")
        try:
            source = nullcontext(self._held) if self._held else closing(self._open())
            with source as connection, closing(sqlite3.connect(target)) as copy:
                connection.backup(copy)
                copy.execute("PRAGMA journal_mode = DELETE")  # all of it in the one file
            return SqliteFile(target).look()
        except (sqlite3.DatabaseError, DatabaseError) as error:
            raise Damaged(f"{self.path} cannot be read: {error}") from error

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """To leave WAL mode takes the file alone: any open connection, even an idle one, stands in the way.

        Nobody can hold a damaged file, and nobody can use it either.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.touch(mode=0o600)
        with self._later, closing(self._open()) as connection:
            try:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # a lock stays when its transaction has ended
                connection.execute("PRAGMA journal_mode = DELETE")
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("COMMIT")
                self._held = connection
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                raise BackupError(BUSY if is_busy else f"{self.path}: {error}") from error
            except sqlite3.DatabaseError:  # it is damaged, and about to be replaced
                connection.close()  # its lock would stand in our own way
            try:
                yield
            finally:
                self._held = None

    def load(self, source: Path, rows: Mapping[str, int]) -> None:  # noqa: ARG002
        """Replace its pages in one transaction; a damaged file by one rename, once what was there is gone for good.

        A log of the old database beside the new one, as after a loss of power, would be played into it.
        """
        if self._held is not None:
            with closing(sqlite3.connect(source)) as copy:
                copy.backup(self._held)
            return
        draft = self.path.with_name(f"{self.path.name}.restoring")
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        shutil.copyfile(source, draft)
        sync_file(draft)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        sync_folder(self.path.parent)
        draft.replace(self.path)
        sync_folder(self.path.parent)

    def look(self) -> Seen:
        """Through the connection that holds it, or one for this look alone."""
        if self._held is None:
            return _seen(create_engine(URL.create("sqlite", database=str(self.path)), poolclass=NullPool))
        held = self._held
        return _seen(create_engine("sqlite://", creator=lambda: held, poolclass=StaticPool))

    def is_empty(self) -> bool:
        """A file that is not there, or holds nothing; to hold it has made it."""
        if self._held is None:
            return not self.path.exists() or self.path.stat().st_size == 0
        try:
            return self._held.execute("SELECT 1 FROM sqlite_master").fetchone() is None
        except sqlite3.DatabaseError:
            return False

    def copy_aside(self, target: Path) -> Path | None:
        """The file as it is. It stays open while it is held: to close any descriptor frees a process's locks."""
        make_folder(target.parent)
        target.touch(mode=0o600)
        with ExitStack() as now, target.open("wb") as copy:
            source = (self._later if self._held else now).enter_context(self.path.open("rb"))
            shutil.copyfileobj(source, copy)
        sync_file(target)
        sync_folder(target.parent)
        return target

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=1, isolation_level=None)


class Postgresql:
    """A PostgreSQL database, by its own pg_dump and pg_restore."""

    kind = "postgresql"

    def __init__(self, url: URL) -> None:
        self.url = url

    def dump(self, target: Path) -> Seen:
        """Dump and check one and the same snapshot."""
        program = _program("pg_dump")
        with self._connected() as connection:
            connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"))
            seen = _look(connection)
            if seen.revision is None:
                raise BackupError(f"there are no tables of cbam-lab in {self.url.database}")
            snapshot = connection.scalar(text("SELECT pg_export_snapshot()"))
            self._run(program, *DUMP, f"--snapshot={snapshot}", f"--file={target}")
        return seen

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Nobody else is connected, and who comes waits where everybody begins, at the lock of migrations.

        What served a connection ends a moment after that was closed.
        """
        lock = f"SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})"  # again and again, which is once
        others = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND backend_type = 'client backend'"
        )
        deadline = time.monotonic() + LEAVING_SECONDS
        with self._connected() as connection:
            while not connection.scalar(text(lock)) or connection.scalar(text(others)):
                if time.monotonic() > deadline:
                    raise BackupError(BUSY)
                time.sleep(0.05)
                connection.execute(text("SELECT pg_stat_clear_snapshot()"))
            yield

    def load(self, source: Path, rows: Mapping[str, int]) -> None:
        """Replace the tables in one transaction, after those that only a newer schema has."""
        program = _program("pg_restore")
        with self._connected() as connection:
            for name in set(tables_of(connection)) - set(rows):
                connection.execute(text(f"DROP TABLE {name} CASCADE"))
        self._run(program, *LOAD, f"--dbname={self.url.database}", str(source))

    def look(self) -> Seen:
        """Connect for this look alone."""
        return _seen(create_engine(self.url, poolclass=NullPool))

    def is_empty(self) -> bool:
        """No table of ours."""
        with self._connected() as connection:
            return not tables_of(connection)

    def copy_aside(self, target: Path) -> Path | None:  # noqa: ARG002
        """It is no file."""
        return None

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        engine = create_engine(self.url, poolclass=NullPool)
        try:
            with engine.begin() as connection:
                yield connection
        except DBAPIError as error:
            raise BackupError(f"PostgreSQL: {str(error.orig).strip()}") from error

    def _run(self, *command: str) -> None:
        """Run a program of PostgreSQL's. The password goes by the environment: arguments are seen by all."""
        given = {
            "PGHOST": self.url.host,
            "PGPORT": self.url.port,
            "PGUSER": self.url.username,
            "PGPASSWORD": self.url.password,
            "PGDATABASE": self.url.database,
            "PGSSLMODE": self.url.query.get("sslmode"),
        }
        environment = os.environ | {name: str(value) for name, value in given.items() if value is not None}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BackupError(f"{Path(command[0]).name}: {done.stderr.strip() or f'exit code {done.returncode}'}")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BackupError(f"{name} is not installed; it comes with PostgreSQL's client (apt install postgresql-client)")
    return found


def _seen(engine: Engine) -> Seen:
    with engine.connect() as connection:
        return _look(connection)


def _look(connection: Connection) -> Seen:
    return Seen(revision_of(connection), rows_of(connection), problems_of(connection))
