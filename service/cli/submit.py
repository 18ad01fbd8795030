"""`cbam submit` and `cbam preview`: send specs."""

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import AsJson, note, print_json, print_table, table
from service.cli.specs import Files, Overrides, read_specs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.client import Client
    from service.preview_views import PreviewView
    from service.schemas import ExperimentView

LOOK_SECONDS = 0.5


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(submit)
    app.command()(preview)


def submit(
    files: Files,
    overrides: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show progress until all have ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit experiments. With --watch the exit code is 0 only if all of them succeed."""
    specs = read_specs(files, overrides)
    from service.client import Client
    from service.states import State

    with Client() as client:
        views = [client.submit(spec).view for spec in specs]
        if watch:
            for view in views:
                note(f"{view.id}  {view.name}")
            views = follow(client, views)
    if as_json:
        print_json(views)
    else:
        for view in views:
            typer.echo("  ".join((view.id, view.name, *((view.state,) if watch else ()))))
    for view in views:
        if watch and view.state is not State.SUCCEEDED and view.message:
            note(f"{view.name}: {view.message}")
    if watch and any(view.state is not State.SUCCEEDED for view in views):
        raise typer.Exit(1)


def follow(client: "Client", views: "Sequence[ExperimentView]") -> "list[ExperimentView]":
    """Show progress until all have ended; returns how they ended. Ctrl-C leaves them running."""
    from service.states import TERMINAL
    from service.watch import watching

    views = list(views)
    try:
        with watching(sys.stderr) as show:
            show(views)
            while any(view.state not in TERMINAL for view in views):
                time.sleep(LOOK_SECONDS)
                views = [view if view.state in TERMINAL else client.view(view.id) for view in views]
                show(views)
    except KeyboardInterrupt:
        note("\nThey go on; see `cbam list`, `cbam logs -f ID`, `cbam cancel ID`.")
        raise typer.Exit(130) from None
    return views


def preview(files: Files, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show what would run: parameters, MACs, attention modules, steps. Nothing is stored."""
    specs = read_specs(files, overrides)
    from service.client import Client

    with Client() as client:
        previews = [client.preview(spec) for spec in specs]
    if as_json:
        print_json(previews)
        return
    columns = ("name", ">parameters", ">of attention", ">MACs", ">of attention", ">sites", ">steps")
    rows = [(spec.name, *_costs(shown)) for spec, shown in zip(specs, previews, strict=True)]
    print_table(table(columns, rows))


def _costs(shown: "PreviewView") -> tuple[str, ...]:
    numbers = (shown.parameters, shown.attention_parameters, shown.macs, shown.attention_macs, len(shown.sites))
    return (*(f"{number:,}" for number in numbers), "?" if shown.total_steps is None else f"{shown.total_steps:,}")
