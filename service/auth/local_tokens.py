"""Tokens made on the database itself: for whoever may read and write it anyway, and for the very first one."""

from collections.abc import Sequence
from typing import Self

from pydantic import ValidationError

from service.auth.tokens import Tokens
from service.database.engine import Database
from service.domain.roles import Role
from service.errors import UnusableToken
from service.schemas.auth import NewToken, TokenRequest, TokenView
from service.settings import Settings

BY = "cbam token create --local"


class LocalTokens:
    """What `Client` offers of tokens, without a server."""

    def __init__(self) -> None:
        """The database that the environment names."""
        self.database = Database(Settings().database_url)
        self.rows = Tokens(self.database)

    def __enter__(self) -> Self:
        self.database.migrate()
        return self

    def __exit__(self, *error: object) -> None:
        self.database.close()

    def create_token(
        self, name: str, role: Role = Role.USER, *, note: str = "", expires_days: int | None = None
    ) -> NewToken:
        """Make a token. Raises UnusableToken where the name cannot be one."""
        try:
            wanted = TokenRequest(name=name, role=role, note=note, expires_days=expires_days)
        except ValidationError as error:
            lines = (f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
            raise UnusableToken("; ".join(lines)) from error
        row, secret = self.rows.create(wanted, by=BY)
        return NewToken.of(TokenView.model_validate(row), secret)

    def tokens(self) -> Sequence[TokenView]:
        """Every token there ever was, the newest first."""
        return [TokenView.model_validate(row) for row in self.rows.list()]

    def revoke_token(self, token_id: str) -> TokenView:
        """Shut a token out. Raises TokenNotFound."""
        return TokenView.model_validate(self.rows.revoke(token_id))
