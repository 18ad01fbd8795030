"""`cbam sweep extend`, `cancel`, `pause`, `resume`, `retry`, `delete`: ask for a change of a sweep."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.commands.experiments import each, tell_asked, tell_deleted
from service.cli.ids import SweepId, SweepIds, whole_sweep
from service.cli.output import AsJson, print_json, say

if TYPE_CHECKING:
    from service.schemas.sweep_views import SweepView

MEANINGS = {
    "cancel": "End sweeps and their experiments; what they have found stays.",
    "pause": "Have the experiments of sweeps write checkpoints and wait.",
    "resume": "Go on with paused sweeps.",
    "retry": "Queue those trials of ended sweeps once more that failed, were cancelled or deleted.",
}


def verbs() -> Iterator[tuple[str, str, Callable[..., None]]]:
    """The name of each verb, what it is for, and what does it."""
    for action, meaning in MEANINGS.items():
        yield action, meaning, _verb(action)


def _verb(action: str) -> Callable[..., None]:
    def ask(sweep_ids: SweepIds, as_json: AsJson = False) -> None:
        from service.client.client import Client

        views: list[SweepView] = []
        with Client() as client:

            def deed(one: str) -> None:
                views.append(getattr(client.get_sweep(one), action)().view)

            all_well = each(client, sweep_ids, deed, find=whole_sweep)
        tell_asked(views, action, as_json=as_json, all_well=all_well)

    return ask


def extend(
    sweep_id: SweepId,
    *,
    trials: Annotated[int | None, typer.Option(min=1, help="In all, as many as it has begun at least.")] = None,
    concurrent: Annotated[int | None, typer.Option(min=1, help="That wait or train at a time.")] = None,
    failed: Annotated[int | None, typer.Option(min=1, help="That end it, one after the other.")] = None,
    hours: Annotated[float | None, typer.Option(help="After its submission.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change the limits of a sweep. One that has ended goes on where more trials are asked for."""
    asked = {"trials": trials, "concurrent": concurrent, "failed": failed, "hours": hours}
    limits = {name: value for name, value in asked.items() if value is not None}
    if not limits:
        raise typer.BadParameter("say which limit changes, e.g. --trials 100")
    from service.client.client import Client

    with Client() as client:
        view = client.get_sweep(whole_sweep(client, sweep_id)).extend(**limits).view
    if as_json:
        print_json(view)
    else:
        say(f"{view.id}  {view.name}  {view.trials.planned} trials, {view.state}")


def delete(
    sweep_ids: SweepIds,
    *,
    experiments: Annotated[
        bool, typer.Option("--experiments", help="Its experiments and their files too; else they stay.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete sweeps that have ended, named by id or whole name. Their experiments stay, unless told otherwise."""
    from service.client.client import Client

    deleted: list[str] = []
    with Client() as client:

        def deed(one: str) -> None:
            client.get_sweep(one).delete(experiments=experiments)
            deleted.append(one)

        all_well = each(client, sweep_ids, deed, exactly=True, find=whole_sweep)
    tell_deleted(deleted, as_json=as_json, all_well=all_well)
