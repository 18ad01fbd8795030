"""The client's calls about who may use the server: whom it takes you for, tokens."""

from collections.abc import Sequence

from service.client.transport import Transport, path
from service.domain.roles import Role
from service.schemas.auth import CallerView, NewToken, TokenList, TokenView


class AccessCalls:
    """Part of `Client`."""

    wire: Transport

    def whoami(self) -> CallerView:
        """Whom the server takes this client for."""
        return self.wire.get(CallerView, "/v1/whoami")

    def create_token(
        self, name: str, role: Role = Role.USER, *, note: str = "", expires_days: int | None = None
    ) -> NewToken:
        """Make a token; for admins. Its secret is in the answer and nowhere else."""
        wanted = {"name": name, "role": role, "note": note, "expires_days": expires_days}
        return self.wire.post(NewToken, "/v1/tokens", json=wanted)

    def tokens(self) -> Sequence[TokenView]:
        """Every token there ever was, the newest first; for admins."""
        return self.wire.get(TokenList, "/v1/tokens").items

    def revoke_token(self, token_id: str) -> TokenView:
        """Shut a token out; for admins."""
        answer = self.wire.send("DELETE", path("/v1/tokens", token_id), again=True)
        return TokenView.model_validate_json(answer.content)
