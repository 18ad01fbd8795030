"""`cbam logs`: read a worker's log, or follow it."""

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cbam_core.printable import escaped
from service.cli.ids import Id, whole
from service.cli.output import AsJsonLines

if TYPE_CHECKING:
    from service.client.client import Client


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(logs)


def logs(
    experiment_id: Id,
    rank: Annotated[int, typer.Option(min=0, help="Which worker's log.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the experiment ends.")] = False,
    as_json: AsJsonLines = False,
) -> None:
    """Print the log of an experiment's worker, all attempts after each other."""
    from service.client.client import Client

    with Client() as client:
        experiment_id = whole(client, experiment_id)
        if not follow and not as_json:
            sys.stdout.write(escaped(client.logs(experiment_id, rank=rank)))
            return
        lines = client.follow_logs(experiment_id, rank=rank) if follow else _written(client, experiment_id, rank)
        try:
            for line in lines:
                print(escaped(_value(experiment_id, rank, line) if as_json else line), flush=True)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None


def _written(client: "Client", experiment_id: str, rank: int) -> Iterator[str]:
    """The lines there are; without an end of line of their own, as those that are followed."""
    text = client.logs(experiment_id, rank=rank)
    yield from text.removesuffix("\n").split("\n") if text else ()


def _value(experiment_id: str, rank: int, line: str) -> str:
    return json.dumps({"experiment_id": experiment_id, "rank": rank, "line": line}, ensure_ascii=False)
