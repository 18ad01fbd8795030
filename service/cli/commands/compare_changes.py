"""`cbam compare add-seeds`, `cancel`, `pause`, `resume`, `retry`, `delete`: ask for a change of a comparison."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.commands.experiments import each, tell_asked, tell_deleted
from service.cli.ids import ComparisonId, ComparisonIds, whole_comparison
from service.cli.output import AsJson, note, print_json, say

if TYPE_CHECKING:
    from service.schemas.studies import ComparisonView

MEANINGS = {
    "cancel": "End comparisons and their experiments; what they have reached stays.",
    "pause": "Have the experiments of comparisons write checkpoints and wait.",
    "resume": "Go on with paused comparisons.",
    "retry": "Queue those experiments of ended comparisons once more that failed or were cancelled.",
}


def verbs() -> Iterator[tuple[str, str, Callable[..., None]]]:
    """The name of each verb, what it is for, and what does it."""
    for action, meaning in MEANINGS.items():
        yield action, meaning, _verb(action)


def _verb(action: str) -> Callable[..., None]:
    def ask(comparison_ids: ComparisonIds, as_json: AsJson = False) -> None:
        from service.client.client import Client

        views: list[ComparisonView] = []
        with Client() as client:

            def deed(one: str) -> None:
                views.append(getattr(client.comparison(one), action)().view)

            all_well = each(client, comparison_ids, deed, find=whole_comparison)
        tell_asked(views, action, as_json=as_json, all_well=all_well)

    return ask


def add_seeds(
    comparison_id: ComparisonId,
    count: Annotated[int, typer.Argument(min=1, help="How many more, for every variant.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Train every variant with more seeds. Once results were seen only the wider interval for any number is told."""
    from service.client.client import Client

    with Client() as client:
        view = client.comparison(whole_comparison(client, comparison_id)).add_seeds(count).view
    if as_json:
        print_json(view)
    else:
        say(f"{view.id}  {view.name}  {view.seeds} seeds, {view.state}")
    if view.seeds_added:
        note("results were seen before: from now on the interval is the wider one that holds at every look")


def replicate(
    comparison_id: ComparisonId,
    *,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=2, help="For every variant; as many as before, where left out.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="NAME-replication, where left out.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the same again with fresh seeds: a comparison with a verdict of its own, and both are told."""
    from service.client.client import Client

    with Client() as client:
        again = client.comparison(whole_comparison(client, comparison_id)).replicate(seeds=seeds, name=name).view
    if as_json:
        print_json(again)
    else:
        say(f"{again.id}  {again.name}")
        note(f"{again.trials.planned} runs; see `cbam compare watch {again.id}`")


def delete(
    comparison_ids: ComparisonIds,
    *,
    experiments: Annotated[
        bool, typer.Option("--experiments", help="Its experiments and their files too; else they stay.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete comparisons that have ended, named by id or whole name. Their experiments stay, unless told otherwise."""
    from service.client.client import Client

    deleted: list[str] = []
    with Client() as client:

        def deed(one: str) -> None:
            client.comparison(one).delete(experiments=experiments)
            deleted.append(one)

        all_well = each(client, comparison_ids, deed, exactly=True, find=whole_comparison)
    tell_deleted(deleted, as_json=as_json, all_well=all_well)
