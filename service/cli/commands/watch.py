"""`cbam watch` and `cbam wait`: be there while experiments train."""

import sys
import time
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.ids import Ids, SomeIds, whole
from service.cli.output import AsJson, AsJsonLines, note, print_json, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.client.client import Client
    from service.schemas.experiments import ExperimentView

LOOK_SECONDS = 0.5
MOST_ROWS = 30


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(watch)
    app.command()(wait)


def watch(
    experiment_ids: SomeIds = None,
    project: Annotated[str | None, typer.Option(help="Without ids: only those of this project.")] = None,
    as_json: AsJsonLines = False,
) -> None:
    """Show a live table: of the experiments named, until they end; else of all that go on, until Ctrl-C.

    With ids the exit code is 0 only if all of them succeed. With --json a line for each change of state, and every 5 s.
    """
    from service.client.client import Client

    with Client() as client:
        if experiment_ids:
            views = follow(client, [client.view(whole(client, given)) for given in experiment_ids], as_json=as_json)
            _exit_as(views)
        else:
            _watch_all(client, project, as_json=as_json)


def wait(
    experiment_ids: Ids,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds; they go on after it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until experiments have ended, and say nothing meanwhile. Exit code 0 only if all of them succeed."""
    from service.client.client import Client
    from service.client.waiting import WaitTimeout

    deadline = None if timeout is None else time.monotonic() + timeout
    views, late = [], False
    with Client() as client:
        for given in experiment_ids:
            handle = client.get(whole(client, given))
            try:
                handle.wait(timeout=None if deadline is None else max(0.0, deadline - time.monotonic()))
            except WaitTimeout as error:
                late = True
                note(str(error))
            views.append(handle.view)
    if as_json:
        print_json(views)
    else:
        for view in views:
            say("  ".join(filter(None, (view.id, view.name, view.state, view.reason))))
    if late:
        raise typer.Exit(1)
    _exit_as(views)


def follow(client: "Client", views: "Sequence[ExperimentView]", *, as_json: bool = False) -> "list[ExperimentView]":
    """Show progress until all have ended; returns how they ended. Ctrl-C leaves them running.

    Progress goes to stderr, but as JSON it is the answer: to stdout.
    """
    from service.client.progress_display import watching
    from service.domain.states import TERMINAL

    views = list(views)
    try:
        with watching(sys.stdout if as_json else sys.stderr, as_json=as_json) as show:
            show(views)
            while any(view.state not in TERMINAL for view in views):
                time.sleep(LOOK_SECONDS)
                seen = client.views([view.id for view in views if view.state not in TERMINAL])
                views = [
                    view if view.state in TERMINAL else seen.get(view.id) or client.view(view.id) for view in views
                ]
                show(views)
    except KeyboardInterrupt:
        note("\nThey go on; see `cbam list`, `cbam logs -f ID`, `cbam cancel ID`.")
        raise typer.Exit(130) from None
    return views


def _watch_all(client: "Client", project: str | None, *, as_json: bool) -> None:
    """Those that go on, and those that have ended since the watching began."""
    from service.client.progress_display import watching
    from service.domain.states import TERMINAL, State

    going_on = [state for state in State if state not in TERMINAL]
    shown: dict[str, ExperimentView] = {}
    try:
        with watching(sys.stdout, as_json=as_json) as show:
            while True:
                found = client.list(state=going_on, project=project, spec=as_json)
                now = {view.id: view for view in islice(found, MOST_ROWS)}
                gone = [name for name, view in shown.items() if name not in now and view.state not in TERMINAL]
                shown = {**now, **shown, **now, **{name: client.view(name) for name in gone}}
                show(list(shown.values())[:MOST_ROWS])
                time.sleep(LOOK_SECONDS)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _exit_as(views: "Sequence[ExperimentView]") -> None:
    from service.domain.states import State

    if any(view.state is not State.SUCCEEDED for view in views):
        raise typer.Exit(1)
