"""What a database's errors mean: it cannot be used now, which is nobody's fault and will pass, or we asked nonsense.

The drivers' own classes do not tell: to psycopg a read-only server is an InternalError, and to sqlite3 a table that
does not exist an OperationalError. Here OperationalError is what it says, on both.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

AWAY = "the database does not answer"
READ_ONLY = "the database can only be read at the moment"
FULL = "the database has no room left"
LOCKED = "the database is locked by another writer"
CROWDED = "all connections to the database are in use"
BROKEN = "the files of the database cannot be used"
_OF_SQLITE = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_PROTOCOL: LOCKED,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_CORRUPT: BROKEN,
    sqlite3.SQLITE_NOTADB: BROKEN,
    sqlite3.SQLITE_CANTOPEN: BROKEN,
    sqlite3.SQLITE_PERM: BROKEN,
    sqlite3.SQLITE_IOERR: BROKEN,
    sqlite3.SQLITE_NOMEM: AWAY,
    sqlite3.SQLITE_INTERRUPT: AWAY,
}
_OF_POSTGRESQL = {  # SQLSTATE, or the class that its first two characters are
    "25006": READ_ONLY,
    "25P03": AWAY,  # idle in a transaction for too long
    "53100": FULL,
    "53300": CROWDED,
    "55P03": LOCKED,
    "40001": LOCKED,
    "40P01": LOCKED,
    "08": AWAY,
    "53": AWAY,
    "57": AWAY,
    "58": BROKEN,
    "XX": BROKEN,
}


class Unusable(OperationalError):
    """The database cannot be used now; `words` say why."""

    def __init__(self, words: str, error: DBAPIError | PoolTimeout) -> None:
        statement, params = getattr(error, "statement", None), getattr(error, "params", None)
        super().__init__(statement, params, getattr(error, "orig", None) or error, hide_parameters=True)
        self.words = words


@contextmanager
def told_apart() -> Iterator[None]:
    """Raise Unusable where the database cannot be used now, ProgrammingError where sqlite3 makes no difference."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        words = trouble_of(error)
        if words is not None:
            raise Unusable(words, error) from error
        if isinstance(error, OperationalError) and error.orig is not None:
            raise ProgrammingError(error.statement, error.params, error.orig) from error
        raise


def trouble_of(error: DBAPIError | PoolTimeout) -> str | None:
    """Why the database cannot be used now; None where the fault is our own."""
    if isinstance(error, PoolTimeout):
        return CROWDED
    if isinstance(error, Unusable):
        return error.words
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", None)
        return None if code is None else _OF_SQLITE.get(code & 0xFF)
    state = getattr(error.orig, "sqlstate", None) or ""
    words = _OF_POSTGRESQL.get(state) or _OF_POSTGRESQL.get(state[:2])
    is_lost = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return words or (AWAY if is_lost else None)
