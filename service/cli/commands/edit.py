"""`cbam edit`: change priority, tags and description of what was submitted."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.commands.experiments import each
from service.cli.ids import Ids
from service.cli.output import AsJson, print_json, say
from service.client.errors import ChangedMeanwhile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.client.client import Client
    from service.schemas.experiments import ExperimentView

Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="Give it this tag; may be repeated.", metavar="NAME=VALUE")
]
Untags = Annotated[
    list[str] | None, typer.Option("--untag", help="Take this tag away; may be repeated.", metavar="NAME")
]

_MOST_TRIES = 10  # an experiment that trains changes about once a second, the two requests take milliseconds


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(edit)


def edit(
    experiment_ids: Ids,
    *,
    priority: Annotated[int | None, typer.Option(help="Larger goes first.")] = None,
    tag: Tags = None,
    untag: Untags = None,
    description: Annotated[str | None, typer.Option(help="What it is for; an empty one takes it away.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change priority, tags or description of experiments. What is not named stays as it is."""
    tags = dict(_tag(word) for word in tag or ())
    if priority is None and description is None and not tags and not untag:
        raise typer.BadParameter("name what to change: --priority, --tag, --untag or --description")
    from service.client.client import Client

    views: list[ExperimentView] = []
    with Client() as client:

        def change(one: str) -> None:
            views.append(_change(client, one, tags, untag or (), priority=priority, description=description))

        all_well = each(client, experiment_ids, change)
    if as_json:
        print_json(views)
    else:
        for view in views:
            words = " ".join(f"{name}={value}" for name, value in view.tags.items())
            say("  ".join(filter(None, (view.id, view.name, f"priority {view.priority}", words, view.description))))
    if not all_well:
        raise typer.Exit(1)


def _tag(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"{word}: write NAME=VALUE", param_hint="--tag")
    return name, value


def _change(
    client: "Client",
    experiment_id: str,
    tags: dict[str, str],
    untag: "Sequence[str]",
    *,
    priority: int | None,
    description: str | None,
) -> "ExperimentView":
    """Change it. The server takes tags whole: they are read first, and again where the experiment changed meanwhile."""
    if not tags and not untag:
        return client.update(experiment_id, priority=priority, description=description)
    tries = 0
    while True:
        tries += 1
        view = client.view(experiment_id)
        retagged = {name: value for name, value in (view.tags | tags).items() if name not in untag}
        try:
            return client.update(
                experiment_id, priority=priority, tags=retagged, description=description, version=view.version
            )
        except ChangedMeanwhile:
            if tries == _MOST_TRIES:
                raise
