"""Bearer tokens: made, listed, revoked, and recognised.

A token is 256 random bits, so a plain SHA-256 of it is enough: there is nothing to guess that a slow password hash
would make slower, and a request must not wait for one. The database alone lets nobody in.
"""

import secrets
from datetime import datetime
from hashlib import sha256

from sqlalchemy import or_, select

from service.db import Database
from service.errors import TokenNotFound
from service.models import Token
from service.roles import Caller, Role
from service.store import new_id, utc_now

PREFIX = "cbam_"  # so that scanners for leaked secrets, and people, recognise one
HINT_LENGTH = len(PREFIX) + 4


def fingerprint(secret: str) -> str:
    """What the database keeps of a token."""
    return sha256(secret.encode("utf-8", errors="surrogateescape")).hexdigest()


class Tokens:
    """The tokens of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(
        self, name: str, role: Role, *, by: str, note: str = "", expires_at: datetime | None = None
    ) -> tuple[Token, str]:
        """Make a token. Returns its row and the secret itself, which is kept nowhere and shown this once."""
        secret = PREFIX + secrets.token_urlsafe(32)
        row = Token(
            id=new_id(),
            name=name,
            note=note,
            role=role,
            sha256=fingerprint(secret),
            hint=secret[:HINT_LENGTH],
            created_at=utc_now(),
            created_by=by,
            expires_at=expires_at,
        )
        with self.database.writing() as session:
            session.add(row)
        return row, secret

    def list(self) -> list[Token]:
        """Every token there ever was, the newest first."""
        with self.database.reading() as session:
            return [*session.scalars(select(Token).order_by(Token.created_at.desc(), Token.id.desc()))]

    def revoke(self, token_id: str) -> Token:
        """Shut a token out from now on; twice is no error. Raises TokenNotFound."""
        with self.database.writing() as session:
            row = session.get(Token, token_id, with_for_update=True)
            if row is None:
                raise TokenNotFound(f"there is no token {token_id!r}")
            row.revoked_at = row.revoked_at or utc_now()
            return row

    def exist(self) -> bool:
        """Whether a token was ever made. One that is revoked counts: a server once closed must not open by itself."""
        with self.database.reading() as session:
            return session.scalar(select(Token.id).limit(1)) is not None

    def caller(self, secret: str) -> Caller | None:
        """Whose token it is, or None where it is unknown, revoked or expired."""
        query = select(Token).where(
            Token.sha256 == fingerprint(secret),
            Token.revoked_at.is_(None),
            or_(Token.expires_at.is_(None), Token.expires_at > utc_now()),
        )
        with self.database.reading() as session:
            row = session.scalar(query)
        return None if row is None else Caller(row.name, Role(row.role), row.id)
