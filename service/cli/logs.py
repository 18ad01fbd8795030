"""`cbam logs`: read a worker's log, or follow it."""

import sys
from typing import Annotated

import typer

from service.cli.ids import Id, whole


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(logs)


def logs(
    experiment_id: Id,
    rank: Annotated[int, typer.Option(min=0, help="Which worker's log.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the experiment ends.")] = False,
) -> None:
    """Print the log of an experiment's worker, all attempts after each other."""
    from service.client import Client

    with Client() as client:
        experiment_id = whole(client, experiment_id)
        if not follow:
            sys.stdout.write(client.logs(experiment_id, rank=rank))
            return
        try:
            for line in client.follow_logs(experiment_id, rank=rank):
                print(line, flush=True)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
