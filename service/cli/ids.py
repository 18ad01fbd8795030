"""Ids as the user types them: whole, or as many of the first characters as tell them apart."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from service.errors import ServiceError

if TYPE_CHECKING:
    from service.client.client import Client

LENGTH = 12
AMONG = 200  # of the newest
HELP = "of experiments, or their first characters"
Ids = Annotated[list[str], typer.Argument(help=f"Ids {HELP}.", metavar="ID...", show_default=False)]
SomeIds = Annotated[list[str] | None, typer.Argument(help=f"Ids {HELP}.", metavar="[ID...]", show_default=False)]
Id = Annotated[
    str, typer.Argument(help="Id of an experiment, or its first characters.", metavar="ID", show_default=False)
]


class UnclearId(ServiceError):
    """No experiment, or more than one, has an id that begins so."""


def whole(client: "Client", given: str) -> str:
    """The id that is meant. Raises UnclearId where none of the newest experiments has it, or several have."""
    if len(given) >= LENGTH:
        return given
    found = [view for view in islice(client.list(page_size=AMONG, spec=False), AMONG) if view.id.startswith(given)]
    if len(found) == 1:
        return found[0].id
    if not found:
        raise UnclearId(f"no experiment among the newest {AMONG} has an id that begins with {given!r}; see `cbam list`")
    some = ", ".join(f"{view.id} ({view.name})" for view in found[:5])
    raise UnclearId(f"{len(found)} experiments have an id that begins with {given!r}: {some}{' …' * (len(found) > 5)}")
