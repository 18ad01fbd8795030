"""Who leads: one row that a dispatcher must renew. A second dispatcher takes over once it has expired."""

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import Float, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from service.database.engine import Database
from service.database.models.base import UtcDateTime
from service.database.models.operations import Lease
from service.errors import NotLeading
from service.settings import Settings

NAME = "dispatcher"


class _In(FunctionElement[datetime]):
    """So many seconds from now by the database's own clock: the machines of two dispatchers may disagree."""

    type = UtcDateTime()
    inherit_cache = True

    def __init__(self, seconds: float) -> None:
        super().__init__(literal(seconds, Float))


@compiles(_In, "postgresql")
def _postgresql(element: _In, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(clock_timestamp() AT TIME ZONE 'UTC' + make_interval(secs => {seconds}))"


@compiles(_In, "sqlite")
def _sqlite(element: _In, compiler: SQLCompiler, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', {seconds} || ' seconds')"


class Leadership:
    """One dispatcher's claim to lead. Its token guards every write: a leader that lost the lease cannot write."""

    def __init__(self, database: Database, *, holder: str, seconds: float) -> None:
        self.database = database
        self.holder = holder
        self.seconds = seconds
        self.token = secrets.token_hex(16)
        self._keep = (  # made once, as it comes with every write
            update(Lease)
            .where(Lease.name == NAME, Lease.token == self.token, Lease.expires_at > _In(0))
            .values(expires_at=_In(seconds))
            .execution_options(synchronize_session=False)
        )

    def renew(self) -> bool:
        """Take or keep the lease. Returns whether this dispatcher leads."""
        take = (
            update(Lease)
            .where(Lease.name == NAME, or_(Lease.token == self.token, Lease.expires_at <= _In(0)))
            .values(token=self.token, holder=self.holder, expires_at=_In(self.seconds))
            .execution_options(synchronize_session=False)
        )
        with self.database.writing() as session:
            if session.execute(take).rowcount == 1:  # type: ignore[attr-defined]
                return True
            if session.get(Lease, NAME) is not None:
                return False
        return self._first()

    def _first(self) -> bool:
        first = insert(Lease).values(name=NAME, token=self.token, holder=self.holder, expires_at=_In(self.seconds))
        try:
            with self.database.writing() as session:
                session.execute(first)
        except IntegrityError:  # another dispatcher was the first
            return False
        return True

    def guard(self, session: Session) -> None:
        """Raise NotLeading unless this dispatcher still leads; to be the first thing in a writing transaction.

        It also renews the lease, so that whoever makes progress keeps it, however long a round of many writes takes.
        """
        if session.execute(self._keep).rowcount != 1:  # type: ignore[attr-defined]
            raise NotLeading

    def release(self) -> None:
        """Let another dispatcher lead at once. A lease holds until the moment at which it expires, not through it."""
        with self.database.writing() as session:
            session.execute(
                update(Lease)
                .where(Lease.name == NAME, Lease.token == self.token)
                .values(expires_at=_In(0))
                .execution_options(synchronize_session=False)
            )


def current_leader(database: Database) -> str | None:
    """The dispatcher that leads, or None."""
    with database.reading() as session:
        return session.scalar(select(Lease.holder).where(Lease.name == NAME, Lease.expires_at > _In(0)))


def main() -> int:
    """Print who leads; exit code 1 where nobody does: the health check of the dispatcher."""
    database = Database(Settings().database_url)
    leader = current_leader(database)
    database.close()
    print(leader or "no dispatcher leads")
    return int(leader is None)


if __name__ == "__main__":
    raise SystemExit(main())
