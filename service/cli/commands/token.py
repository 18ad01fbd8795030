"""`cbam token create`, `list`, `revoke`, `whoami`: who may use the server."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from service.cli.output import AsJson, note, print_json, print_table, say, table
from service.domain.roles import Role
from service.domain.values import human_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.schemas.auth import NewToken, TokenView

Local = Annotated[
    bool, typer.Option("--local", help="Work on the database of CBAM_DATABASE_URL itself: for the first admin's token.")
]


class _Desk(Protocol):
    """Where tokens are made: a server, or a database."""

    def create_token(self, name: str, role: Role, *, note: str = "", expires_days: int | None = None) -> "NewToken":
        """Make one."""

    def tokens(self) -> "Sequence[TokenView]":
        """All of them."""

    def revoke_token(self, token_id: str) -> "TokenView":
        """Shut one out."""


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(help="Make, list and revoke tokens: who may use the server.", no_args_is_help=True)
    for verb in (create, revoke, whoami):
        group.command()(verb)
    group.command("list")(list_tokens)
    app.add_typer(group, name="token")


def create(
    name: Annotated[str, typer.Argument(help="Whose it is: the owner of what is made with it.", show_default=False)],
    *,
    role: Annotated[Role, typer.Option(help="viewer sees all, user changes their own, admin changes all.")] = Role.USER,
    note_: Annotated[str, typer.Option("--note", help="What it is for.")] = "",
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="Days it is good for; else for ever.")
    ] = None,
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Make a token. Its secret is printed this once."""
    with _desk(local) as desk:
        made = desk.create_token(name, role, note=note_, expires_days=expires_days)
    if as_json:
        print_json(made)
        return
    note(f"token {made.id} for {made.name}, {made.role}; it is shown this once, keep it as CBAM_TOKEN:")
    say(made.secret)


def list_tokens(local: Local = False, as_json: AsJson = False) -> None:
    """List every token there ever was, the newest first."""
    with _desk(local) as desk:
        found = desk.tokens()
    if as_json:
        print_json(found)
        return
    rows = [
        (t.id, t.name, t.role, f"{t.hint}…", _state(t), _day(t.created_at), _day(t.last_used_at), t.note) for t in found
    ]
    print_table(table(("id", "name", "role", "token", "", "made", "last used", "note"), rows))


def revoke(
    token_ids: Annotated[list[str], typer.Argument(help="Ids of tokens.", metavar="ID...", show_default=False)],
    local: Local = False,
    as_json: AsJson = False,
) -> None:
    """Shut tokens out, from the next request on."""
    with _desk(local) as desk:
        revoked = [desk.revoke_token(token_id) for token_id in token_ids]
    if as_json:
        print_json(revoked)
        return
    for token in revoked:
        say(f"{token.id}  {token.name}  revoked")


def whoami(as_json: AsJson = False) -> None:
    """Show whom the server takes you for."""
    from service.client.client import Client

    with Client() as client:
        caller = client.whoami()
    if as_json:
        print_json(caller)
    else:
        quota, used = caller.disk_quota_bytes, human_bytes(caller.disk_bytes)
        say(f"{caller.name}, {caller.role}{'' if quota is None else f', {used} of {human_bytes(quota)} of files'}")


@contextmanager
def _desk(local: bool) -> Iterator[_Desk]:
    if not local:
        from service.client.client import Client

        with Client() as client:
            yield client
        return
    from service.auth.local_tokens import LocalTokens

    with LocalTokens() as tokens:
        yield tokens


def _state(token: "TokenView") -> str:
    if token.revoked_at is not None:
        return "revoked"
    if token.expires_at is None:
        return ""
    return "expired" if token.expires_at < datetime.now(UTC) else f"until {_day(token.expires_at)}"


def _day(at: datetime | None) -> str:
    return "never" if at is None else f"{at:%Y-%m-%d}"
