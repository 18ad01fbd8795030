"""Who leads: one row that a dispatcher must renew. A second dispatcher takes over once it has expired."""

import secrets
from datetime import timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db import Database
from service.errors import NotLeading
from service.models import Lease
from service.store import utc_now

NAME = "dispatcher"


class Leadership:
    """One dispatcher's claim to lead. Its token guards every write: a leader that lost the lease cannot write."""

    def __init__(self, database: Database, *, holder: str, seconds: float) -> None:
        self.database = database
        self.holder = holder
        self.seconds = seconds
        self.token = secrets.token_hex(16)

    def renew(self) -> bool:
        """Take or keep the lease. Returns whether this dispatcher leads."""
        now = utc_now()
        take = (
            update(Lease)
            .where(Lease.name == NAME, or_(Lease.token == self.token, Lease.expires_at < now))
            .values(token=self.token, holder=self.holder, expires_at=now + timedelta(seconds=self.seconds))
        )
        with self.database.writing() as session:
            if session.execute(take).rowcount == 1:  # type: ignore[attr-defined]
                return True
            if session.get(Lease, NAME) is not None:
                return False
        return self._first(now + timedelta(seconds=self.seconds))

    def _first(self, expires_at: object) -> bool:
        try:
            with self.database.writing() as session:
                session.add(Lease(name=NAME, token=self.token, holder=self.holder, expires_at=expires_at))
        except IntegrityError:  # another dispatcher was the first
            return False
        return True

    def guard(self, session: Session) -> None:
        """Raise NotLeading unless this dispatcher still leads; to be the first thing in a writing transaction."""
        held = select(Lease.token).where(Lease.name == NAME, Lease.expires_at >= utc_now()).with_for_update()
        if session.scalar(held) != self.token:
            raise NotLeading

    def release(self) -> None:
        """Let another dispatcher lead at once."""
        with self.database.writing() as session:
            session.execute(
                update(Lease).where(Lease.name == NAME, Lease.token == self.token).values(expires_at=utc_now())
            )


def current_leader(database: Database) -> str | None:
    """The dispatcher that leads, or None."""
    with database.reading() as session:
        return session.scalar(select(Lease.holder).where(Lease.name == NAME, Lease.expires_at >= utc_now()))
