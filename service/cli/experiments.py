"""`cbam list`, `show`, `cancel`, `pause`, `resume`, `retry`: look at experiments, and ask for a change."""

from collections.abc import Callable
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import AsJson, note, print_json, print_table, table
from service.errors import ServiceError
from service.states import State

if TYPE_CHECKING:
    from service.client import Client
    from service.schemas import ExperimentView

Ids = Annotated[list[str], typer.Argument(help="Ids of experiments.", metavar="ID...", show_default=False)]
Id = Annotated[str, typer.Argument(help="Id of an experiment.", metavar="ID", show_default=False)]


class Action(StrEnum):
    """What may be asked for."""

    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


MEANINGS = {
    Action.CANCEL: "End experiments and free what they hold; the last checkpoint stays.",
    Action.PAUSE: "Write a checkpoint, free what experiments hold, wait.",
    Action.RESUME: "Queue paused experiments; they go on from their checkpoints.",
    Action.RETRY: "Queue failed or cancelled experiments once more; they go on from their last checkpoints.",
}


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("list")(list_experiments)
    app.command()(show)
    for action, meaning in MEANINGS.items():
        app.command(action.value, help=meaning)(_verb(action))


def list_experiments(
    state: Annotated[list[State] | None, typer.Option(help="Only those in this state; may be repeated.")] = None,
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    q: Annotated[str | None, typer.Option("-q", help="Only those with this in their name.")] = None,
    limit: Annotated[int, typer.Option("-n", min=1, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List experiments, the newest first."""
    from service.client import Client
    from service.watch import summary

    with Client() as client:
        found = client.list(states=state or (), project=project, q=q, page_size=min(limit, 200))
        views = list(islice(found, limit))
    if as_json:
        print_json(views)
        return
    rows = [(view.id, view.name, view.project, view.state, summary(view)) for view in views]
    print_table(table(("id", "name", "project", "state", ""), rows))


def show(experiment_id: Id, as_json: AsJson = False) -> None:
    """Show one experiment: state, progress, metrics, history, links."""
    from service.client import Client

    with Client() as client:
        view = client.view(experiment_id)
        if as_json:
            print_json(view)
            return
        print_table(table(("", ""), _facts(client, view)))
        moves = [
            (f"{e.at:%H:%M:%S}", e.to_state, e.reason or "", e.attempt or "", e.by) for e in client.events(view.id)
        ]
        print_table(table(("at (UTC)", "state", "reason", ">attempt", "by"), moves))


def _facts(client: "Client", view: "ExperimentView") -> list[tuple[str, object]]:
    from service.watch import summary

    facts: list[tuple[str, object]] = [
        ("id", view.id),
        ("name", view.name),
        ("project", view.project),
        ("state", f"{view.state}  {summary(view)}".rstrip()),
        ("message", view.message),
        *((name, f"{value:.6g}") for name, value in sorted(view.metrics.items())),
        ("parameters", _number(view.summary.get("parameters"))),
        ("MACs", _number(view.summary.get("macs"))),
        ("wall time", f"{view.summary['wall_seconds']:.1f} s" if "wall_seconds" in view.summary else ""),
        ("API", f"{client.base_url}{view.links.self}"),
        ("MLflow", view.links.mlflow or ""),
    ]
    return [(name, value) for name, value in facts if value != ""]


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _verb(action: Action) -> Callable[..., None]:
    def ask(experiment_ids: Ids, as_json: AsJson = False) -> None:
        from service.client import Client

        views, failed = [], False
        with Client() as client:
            ask_for = {Action.CANCEL: client.cancel, Action.PAUSE: client.pause, Action.RESUME: client.resume}[action]
            for experiment_id in experiment_ids:
                try:
                    views.append(ask_for(experiment_id))
                except ServiceError as error:
                    failed = True
                    note(f"{experiment_id}: {error}")
        if as_json:
            print_json(views)
        else:
            for view in views:
                typer.echo(f"{view.id}  {view.name}  {view.state}, {action} asked for")
        if failed:
            raise typer.Exit(1)

    return ask
