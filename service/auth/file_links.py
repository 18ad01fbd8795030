"""Links to files that work once, soon or never, and need no token: for programs that cannot send one.

A link is a row, and the answer that takes it away is the one that gets the file: so it works once, however many servers
share the database. Of its secret, 256 random bits, only the SHA-256 is kept.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from service.auth.tokens import fingerprint
from service.database.engine import Database
from service.database.models.auth import FileLink, Token
from service.domain.roles import Caller
from service.domain.values import utc_now
from service.errors import NoSuchLink

LIFE_SECONDS = 60
PREFIX = "cbam_link_"  # as the log knows secrets (service/redaction.py)


@dataclass(frozen=True)
class LinkedFile:
    """What a link is for."""

    experiment_id: str
    path: str


class FileLinks:
    """The links of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def make(self, file: LinkedFile, *, caller: Caller) -> tuple[str, datetime]:
        """Returns the secret, which is kept nowhere, and when the link ends. Links that have ended are removed."""
        secret, now = PREFIX + secrets.token_urlsafe(32), utc_now()
        row = FileLink(
            sha256=fingerprint(secret),
            experiment_id=file.experiment_id,
            path=file.path,
            token_id=caller.token_id,
            expires_at=now + timedelta(seconds=LIFE_SECONDS),
        )
        with self.database.writing() as session:
            session.execute(delete(FileLink).where(FileLink.expires_at <= now))
            session.add(row)
        return secret, row.expires_at

    def use(self, secret: str, name: str) -> LinkedFile:
        """What the link is for; it is used by this. `name` is the file's, without folders.

        Raises NoSuchLink, also where the token is no longer good by which it was made.
        """
        is_meant = FileLink.sha256 == fingerprint(secret)
        with self.database.reading() as session:  # a stranger's guess must not wait for the write lock, or take it
            if session.scalar(select(FileLink.expires_at).where(is_meant)) is None:
                raise NoSuchLink
        with self.database.writing() as session:
            taken = delete(FileLink).where(is_meant, FileLink.expires_at > utc_now())
            columns = FileLink.experiment_id, FileLink.path, FileLink.token_id
            row = session.execute(taken.returning(*columns)).one_or_none()
            if row is None or row.path.rsplit("/", 1)[-1] != name or not _is_good(session, row.token_id):
                raise NoSuchLink
        return LinkedFile(row.experiment_id, row.path)


def _is_good(session: Session, token_id: str | None) -> bool:
    """Whether the token is still good by which a link was made; without one, whether there is still none."""
    if token_id is None:
        return session.scalar(select(Token.id).limit(1)) is None
    lasts = or_(Token.expires_at.is_(None), Token.expires_at > utc_now())
    return session.scalar(select(Token.id).where(Token.id == token_id, Token.revoked_at.is_(None), lasts)) is not None
