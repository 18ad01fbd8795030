"""`cbam submit`, `clone` and `preview`: send specs."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.commands.watch import follow
from service.cli.ids import Id, whole
from service.cli.output import AsJson, note, print_json, print_table, say, table
from service.cli.specs import Files, Overrides, Template, need_one, read_overrides, read_specs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from service.client.client import Client
    from service.schemas.experiments import ExperimentView
    from service.schemas.previews import PreviewView

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show progress until all have ended.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(submit)
    app.command()(clone)
    app.command()(preview)


def submit(
    files: Files = None,
    *,
    template: Template = None,
    overrides: Overrides = None,
    watch: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Submit experiments. With --watch the exit code is 0 only if all of them succeed."""
    need_one(files, template)
    wanted = read_overrides(overrides)
    specs = read_specs(files or (), wanted)
    from service.client.client import Client

    with Client() as client:
        views = [client.submit(spec).view for spec in specs]
        if template is not None:
            views.append(client.submit_template(template, wanted).view)
        warn(views)
        finish(client, views, watch=watch, as_json=as_json)


def clone(experiment_id: Id, overrides: Overrides = None, watch: Watch = False, as_json: AsJson = False) -> None:
    """Submit an experiment once more, with changes. Anybody's may be cloned; the copy is yours."""
    wanted = read_overrides(overrides)
    from service.client.client import Client

    with Client() as client:
        view = client.clone(whole(client, experiment_id), wanted).view
        warn([view])
        finish(client, [view], watch=watch, as_json=as_json)


def warn(views: "Sequence[ExperimentView]") -> None:
    """Say what looks odd about what was submitted, each once."""
    for line in dict.fromkeys(f"{view.name}: {w.pointer}: {w.detail}" for view in views for w in view.warnings):
        note(line)


def finish(client: "Client", views: "Sequence[ExperimentView]", *, watch: bool, as_json: bool) -> None:
    """Watch what was submitted, where that is wanted, and print it; exit code 1 where one did not succeed."""
    from service.domain.states import State

    if watch:
        for view in views:
            note(f"{view.id}  {view.name}")
        views = follow(client, views)
    if as_json:
        print_json(views)
    else:
        for view in views:
            say("  ".join((view.id, view.name, *((view.state,) if watch else ()))))
    for view in views:
        if watch and view.state is not State.SUCCEEDED and view.message:
            note(f"{view.name}: {view.message}")
    if watch and any(view.state is not State.SUCCEEDED for view in views):
        raise typer.Exit(1)


def preview(
    files: Files = None, *, template: Template = None, overrides: Overrides = None, as_json: AsJson = False
) -> None:
    """Show what would run: parameters, MACs, attention modules, steps, and what looks odd. Nothing is stored."""
    need_one(files, template)
    wanted = read_overrides(overrides)
    specs = read_specs(files or (), wanted)
    from service.client.client import Client

    with Client() as client:
        shown = [(spec.name, client.preview(spec)) for spec in specs]
        if template is not None:
            shown.append((template, client.preview_template(template, wanted)))
    if as_json:
        print_json([view for _, view in shown])
        return
    columns = ("name", ">parameters", ">of attention", ">MACs", ">of attention", ">sites", ">steps")
    print_table(table(columns, [(name, *costs(view)) for name, view in shown]))
    for name, view in shown:
        for line in (view.split, *beginning(view)):
            if line:
                say(f"{name}: {line}")
        for warning in view.warnings:
            note(f"{name}: {warning.pointer}: {warning.detail}")


def beginning(shown: "PreviewView") -> "Iterator[str]":
    """What a weights file gives, and what of the network learns, where a spec says anything of it."""
    if (weights := shown.weights) is not None:
        yield (
            f"weights of {weights.source}: {weights.loaded} loaded, {weights.missing_count} missing, "
            f"{weights.unexpected_count} unexpected"
        )
    if 0 < shown.trainable_parameters < shown.parameters:  # an older server does not say
        yield f"{shown.trainable_parameters:,} of {shown.parameters:,} parameters learn"
    if len(shown.lr_scales) > 1:
        least, most = shown.lr_scales[0].scale, shown.lr_scales[-1].scale
        yield f"learning rates from {least:.3g} to {most:.3g} times lr"


def costs(shown: "PreviewView") -> tuple[str, ...]:
    """Parameters, MACs, sites of attention and steps, as a table shows them."""
    numbers = (shown.parameters, shown.attention_parameters, shown.macs, shown.attention_macs, len(shown.sites))
    return (*(f"{number:,}" for number in numbers), "?" if shown.total_steps is None else f"{shown.total_steps:,}")
