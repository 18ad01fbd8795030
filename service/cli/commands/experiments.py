"""`cbam list`, `show`, `cancel`, `pause`, `resume`, `retry`, `delete`: look at experiments, and ask for a change."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.ids import Id, Ids, whole, whole_study
from service.cli.output import AsJson, note, print_json, print_table, say, table
from service.client.errors import ServerUnreachable
from service.client.local_url import public_url
from service.domain.states import State
from service.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.client.client import Client
    from service.schemas.experiments import ExperimentView
    from service.schemas.studies import ComparisonView
    from service.schemas.sweep_views import SweepView


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
    app.command()(delete)


def list_experiments(  # noqa: PLR0913 - one for each option
    *,
    state: Annotated[list[State] | None, typer.Option(help="Only those in this state; may be repeated.")] = None,
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only those with this tag; may be repeated.", metavar="NAME[:VALUE]")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Only those with this backbone.")] = None,
    attention: Annotated[str | None, typer.Option(help="Only those with this type of attention.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only those on this dataset.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only those of this user.")] = None,
    q: Annotated[str | None, typer.Option("-q", help="Only those with this in their name.")] = None,
    study: Annotated[
        str | None, typer.Option(help="Only those of this comparison or sweep: its id, its name, or how either begins.")
    ] = None,
    since: Annotated[datetime | None, typer.Option(help="Only those made at this time (UTC) or later.")] = None,
    sort: Annotated[
        str | None,
        typer.Option(help="By created_at, name, priority, started_at or ended_at; a minus sign turns it round."),
    ] = None,
    limit: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List experiments, the newest first."""
    from service.client.client import Client
    from service.client.progress_display import summary

    with Client() as client:
        found = client.list(
            state=state or (),
            project=project,
            q=q,
            owner=owner,
            tag=tag or (),
            backbone=backbone,
            attention=attention,
            dataset=dataset,
            study=None if study is None else whole_study(client, study),
            created_after=None if since is None else since.replace(tzinfo=UTC),
            sort=sort,
            page_size=min(limit, 200),
            spec=as_json,
        )
        views = list(islice(found, limit))
    if as_json:
        print_json(views)
        return
    rows = [(view.id, view.name, view.project, view.state, summary(view)) for view in views]
    print_table(table(("id", "name", "project", "state", ""), rows))


def show(experiment_id: Id, as_json: AsJson = False) -> None:
    """Show one experiment: state, progress, metrics, history, links."""
    from service.client.client import Client

    with Client() as client:
        view = client.view(whole(client, experiment_id))
        if as_json:
            print_json(view)
            return
        print_table(table(("", ""), _facts(client, view)))
        moves = [
            (f"{e.at:%H:%M:%S}", e.to_state, e.reason or "", e.attempt or "", e.by) for e in client.events(view.id)
        ]
        print_table(table(("at (UTC)", "state", "reason", ">attempt", "by"), moves))


def _facts(client: "Client", view: "ExperimentView") -> list[tuple[str, object]]:
    from service.client.progress_display import summary

    facts: list[tuple[str, object]] = [
        ("id", view.id),
        ("name", view.name),
        ("project", view.project),
        ("state", f"{view.state}  {summary(view)}".rstrip()),
        ("message", view.message),
        *_asked(view.spec),
        ("images", str(view.summary.get("split", ""))),
        *((name, f"{value:.6g}") for name, value in sorted(view.metrics.items())),
        ("parameters", _number(view.summary.get("parameters"))),
        ("MACs", _number(view.summary.get("macs"))),
        ("wall time", f"{view.summary['wall_seconds']:.1f} s" if "wall_seconds" in view.summary else ""),
        ("API", f"{public_url(client.base_url)}{view.links.self}"),
        ("MLflow", view.links.mlflow or ""),
    ]
    return [(name, value) for name, value in facts if value != ""]


def _asked(spec: "Mapping[str, Any]") -> list[tuple[str, object]]:
    """The network, the data and the seed of a spec as the server has it, which may be damaged by hand."""

    def at(*path: str) -> object:
        value: object = spec
        for name in path:
            value = value.get(name, "") if isinstance(value, dict) else ""
        return value

    return [
        ("backbone", at("model", "backbone")),
        ("attention", at("model", "attention", "type")),
        ("weights", at("model", "weights", "source")),
        ("dataset", at("data", "dataset")),
        ("seed", at("train", "seed")),
    ]


def _number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _verb(action: Action) -> Callable[..., None]:
    def ask(experiment_ids: Ids, as_json: AsJson = False) -> None:
        from service.client.client import Client

        views: list[ExperimentView] = []
        with Client() as client:
            ask_for: Callable[[str], ExperimentView] = getattr(client, action.value)
            all_well = each(client, experiment_ids, lambda one: views.append(ask_for(one)))
        tell_asked(views, action, as_json=as_json, all_well=all_well)

    return ask


def delete(experiment_ids: Ids, as_json: AsJson = False) -> None:
    """Delete experiments that have ended, named by id or whole name, with their files. Their MLflow runs stay."""
    from service.client.client import Client

    deleted: list[str] = []
    with Client() as client:

        def deed(one: str) -> None:
            client.delete(one)
            deleted.append(one)

        all_well = each(client, experiment_ids, deed, exactly=True)
    tell_deleted(deleted, as_json=as_json, all_well=all_well)


def tell_asked(
    views: "Sequence[ExperimentView | ComparisonView | SweepView]", action: str, *, as_json: bool, all_well: bool
) -> None:
    """Say of each what was asked for, and where it is. Ends the command with 1 where not all went well."""
    if as_json:
        print_json(views)
    else:
        for view in views:
            say(f"{view.id}  {view.name}  {view.state}, {action} asked for")
    if not all_well:
        raise typer.Exit(1)


def tell_deleted(ids: "Sequence[str]", *, as_json: bool, all_well: bool) -> None:
    """Say which are deleted. Ends the command with 1 where not all went well."""
    if as_json:
        print_json({"deleted": ids})
    else:
        for one in ids:
            say(f"{one}  deleted")
    if not all_well:
        raise typer.Exit(1)


def each(
    client: "Client",
    given: Sequence[str],
    deed: Callable[[str], None],
    *,
    exactly: bool = False,
    find: Callable[..., str] = whole,
) -> bool:
    """Do it to each; what is refused is told, and does not hold up the others. Returns whether nothing was refused.

    `exactly`: to ids and whole names alone, for what cannot be taken back. `find` gives the id that is meant.
    """
    all_well = True
    for one in given:
        try:
            deed(find(client, one, exactly=exactly))
        except ServerUnreachable:
            raise
        except ServiceError as error:
            all_well = False
            note(f"{one}: {error}")
    return all_well
