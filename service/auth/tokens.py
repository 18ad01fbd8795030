"""Bearer tokens: made, listed, revoked, and recognised.

A token is 256 random bits, so a plain SHA-256 of it is enough: there is nothing to guess that a slow password hash
would make slower, and a request must not wait for one. The database alone lets nobody in.
"""

import os
import re
import secrets
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

from sqlalchemy import or_, select, text

from service.database.engine import Database
from service.database.models.auth import Token
from service.domain.roles import Caller, Role
from service.domain.values import new_id, utc_now
from service.errors import TokenNotFound, UnusableToken
from service.schemas.auth import TokenRequest
from workers.protocol.storage import sync_file, sync_folder

PREFIX = "cbam_"  # so that scanners for leaked secrets, and people, recognise one
HINT_LENGTH = len(PREFIX) + 4
SHORTEST = 32
_USABLE = re.compile(rf"[A-Za-z0-9._~+/=-]{{{SHORTEST},512}}")


def new_secret() -> str:
    """A token that nobody has."""
    return PREFIX + secrets.token_urlsafe(32)


def fingerprint(secret: str) -> str:
    """What the database keeps of a token."""
    return sha256(secret.encode("utf-8", errors="surrogateescape")).hexdigest()


class Tokens:
    """The tokens of one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, wanted: TokenRequest, *, by: str) -> tuple[Token, str]:
        """Make a token. Returns its row and the secret itself, which is kept nowhere and shown this once."""
        secret = new_secret()
        row = _row(secret, wanted, by=by)
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
        query = select(Token.name, Token.role, Token.id).where(
            Token.sha256 == fingerprint(secret),
            Token.revoked_at.is_(None),
            or_(Token.expires_at.is_(None), Token.expires_at > utc_now()),
        )
        with self.database.reading() as session:
            row = session.execute(query).one_or_none()
        return None if row is None else Caller(row.name, Role(row.role), row.id)

    def bootstrap(self, path: Path) -> bool:
        """Where there is no token yet, make an admin's: the one in the file, else a new one, written to the file.

        Returns whether it did. Safe to call from several processes at once. Raises UnusableToken where the file holds
        something that could be guessed.
        """
        with self.database.writing() as session:
            if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer anyway
                session.execute(text("LOCK TABLE tokens IN SHARE ROW EXCLUSIVE MODE"))
            if session.scalar(select(Token.id).limit(1)) is not None:
                return False
            secret = _handed_in(path) or _left_at(path)
            first = TokenRequest(name="admin", role=Role.ADMIN, note="the first token, made at the first start")
            session.add(_row(secret, first, by="bootstrap"))
        return True


def _row(secret: str, wanted: TokenRequest, *, by: str) -> Token:
    now = utc_now()
    return Token(
        id=new_id(),
        name=wanted.name,
        note=wanted.note,
        role=wanted.role,
        sha256=fingerprint(secret),
        hint=secret[:HINT_LENGTH],
        created_at=now,
        created_by=by,
        expires_at=None if wanted.expires_days is None else now + timedelta(days=wanted.expires_days),
    )


def _handed_in(path: Path) -> str | None:
    """The token that the operator has put there."""
    secret = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    if secret and not _USABLE.fullmatch(secret):
        raise UnusableToken(f"{path} must hold one line of {SHORTEST} to 512 letters, digits, and any of ._~+/=-")
    return secret or None


def _left_at(path: Path) -> str:
    """A new token, in a file that its owner alone can read from the first moment on."""
    secret = new_secret()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # it is empty
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(f"{secret}\n")
    sync_file(path)  # the database, which knows only its hash, is synced too
    sync_folder(path.parent)
    return secret
