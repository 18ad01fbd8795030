"""`cbam sweep`: search for good values of some fields. Make, preview, list, show, watch sweeps, show the best."""

import json
import shlex
import sys
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.commands.compare import print_decisions
from service.cli.commands.submit import costs
from service.cli.commands.sweep_changes import delete, extend, verbs
from service.cli.comparison_specs import Overrides, SweepFile, example, read_sweep_file
from service.cli.ids import SweepId, whole_sweep
from service.cli.output import AsJson, AsJsonLines, note, print_json, print_table, say, table
from service.cli.specs import read_overrides
from service.client.local_url import public_url
from service.domain.studies import StudyState

if TYPE_CHECKING:
    from service.client.sweeping.handle import SweepHandle
    from service.schemas.sweep_views import SweepResult

MOST_SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(help="Search for good values of fields: grid, random, TPE, CMA-ES.", no_args_is_help=True)
    for verb in (init, preview, run, show, watch, best, trials, decisions, extend):
        group.command()(verb)
    group.command("list")(list_sweeps)
    for name, meaning, verb in verbs():
        group.command(name, help=meaning)(verb)
    group.command()(delete)
    app.add_typer(group, name="sweep")


def init(as_json: AsJson = False) -> None:
    """Print a sweep to begin with, as YAML: learning rate and attention on the small digits."""
    from cbam_core.yaml_text import parse_yaml

    text = example("sweeps/rate-and-attention.yaml")
    if as_json:
        print_json(parse_yaml(text))
    else:
        say(text, nl=False)


def run(
    file: SweepFile,
    *,
    overrides: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show progress until it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a sweep. With --watch the exit code is 0 only if it ends with a result."""
    spec = read_sweep_file(file, read_overrides(overrides))
    from service.client.client import Client

    with Client() as client:
        handle = client.sweep(spec)
        if watch:
            note(f"{handle.id}  {handle.view.name}")
            _follow(handle)
        if as_json:
            print_json(handle.view)
        elif watch:
            _print_result(handle.result)
        else:
            say(f"{handle.id}  {handle.view.name}")
            note(f"{handle.view.trials.planned} trials; see `cbam sweep watch {handle.id}`")
        if watch:
            _exit_by(handle)


def preview(file: SweepFile, *, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show how many trials a sweep would run, with which values first, and what the first costs. Nothing is stored."""
    spec = read_sweep_file(file, read_overrides(overrides))
    from service.client.client import Client
    from service.client.sweeping.display import shown

    with Client() as client:
        plan = client.preview_sweep(spec)
    if as_json:
        print_json(plan)
        return
    columns = ("", ">parameters", ">of attention", ">MACs", ">of attention", ">sites", ">steps")
    print_table(table(columns, [("trial 0", *costs(plan.first))]))
    say(f"{plan.trials} trials, at most {plan.epochs:,} epochs in all")
    for number, params in enumerate(plan.examples):
        say(f"trial {number}: " + "  ".join(f"{name} {shown(value)}" for name, value in params.items()))
    for warning in plan.first.warnings:
        note(f"{warning.pointer}: {warning.detail}")


def list_sweeps(
    *,
    state: Annotated[list[StudyState] | None, typer.Option(help="Only those in this state; may be repeated.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only those of this user.")] = None,
    limit: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List sweeps, the newest first."""
    from service.client.client import Client
    from service.client.comparing.display import counts

    with Client() as client:
        found = client.sweeps(state=state or (), owner=owner, page_size=min(limit, 200))
        views = list(islice(found, limit))
    if as_json:
        print_json(views)
        return
    rows = [(view.id, view.name, view.project, view.state, view.method, view.metric, counts(view)) for view in views]
    print_table(table(("id", "name", "project", "state", "method", "metric", ""), rows))


def show(sweep_id: SweepId, as_json: AsJson = False) -> None:
    """Show one sweep: state, counts, its best trials. As JSON: its result."""
    from service.client.client import Client
    from service.client.comparing.display import counts

    with Client() as client:
        handle = client.get_sweep(whole_sweep(client, sweep_id))
        result, view = handle.result, handle.view
    if as_json:
        print_json(result)
        return
    limits = "  ".join(f"{name} {value}" for name, value in view.limits.model_dump().items() if value is not None)
    facts = [
        ("id", view.id),
        ("name", view.name),
        ("project", view.project),
        ("state", "  ".join(filter(None, (view.state, view.reason, counts(view))))),
        ("message", view.message),
        ("method", f"{view.method}, seed {view.seed}, {view.metric} {view.mode}"),
        ("limits", limits),
        ("API", f"{public_url(client.base_url)}{view.links.self}"),
    ]
    print_table(table(("", ""), [(name, value) for name, value in facts if value != ""]))
    _print_result(result)


def watch(sweep_id: SweepId, as_json: AsJsonLines = False) -> None:
    """Show the best trials until a sweep has ended. Exit code 0 only if it ends with a result.

    A pipe gets a line for each change; with --json each is a line of JSON.
    """
    from service.client.client import Client

    with Client() as client:
        handle = client.get_sweep(whole_sweep(client, sweep_id))
        _follow(handle, as_json=as_json)
        if not as_json:
            _print_result(handle.result)
        _exit_by(handle)


def best(sweep_id: SweepId, as_json: AsJson = False) -> None:
    """Print the best trial so far: its value, its experiment, and its values as options of `cbam submit`."""
    from service.client.client import Client

    with Client() as client:
        found = client.get_sweep(whole_sweep(client, sweep_id)).best
    if found is None:
        note("no trial has ended with a value yet")
        raise typer.Exit(1)
    if as_json:
        print_json(found)
        return
    say(f"{found.value:.4f}  trial {found.number}  {found.experiment_id}")
    say(" ".join(f"--set {shlex.quote(f'{name}={_text(value)}')}" for name, value in found.params.items()))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def trials(sweep_id: SweepId, as_json: AsJson = False) -> None:
    """List the trials of a sweep in the order in which they were proposed."""
    from service.client.client import Client
    from service.client.sweeping.display import shown

    with Client() as client:
        found = client.get_sweep(whole_sweep(client, sweep_id)).trials()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            *(one.number, one.experiment_id or "", one.state or "", one.outcome or ""),
            "" if one.value is None else f"{one.value:.4f}",
            "  ".join(f"{name} {shown(value)}" for name, value in one.params.items()),
        )
        for one in found
    ]
    print_table(table((">trial", "experiment", "state", "outcome", ">value", "values"), rows))


def decisions(sweep_id: SweepId, as_json: AsJson = False) -> None:
    """List what was decided of a sweep, when and by whom."""
    from service.client.client import Client

    with Client() as client:
        found = client.get_sweep(whole_sweep(client, sweep_id)).decisions()
    print_decisions(found, as_json=as_json)


def _follow(handle: "SweepHandle", *, as_json: bool = False) -> None:
    """Show progress until it has ended. Ctrl-C leaves it running."""
    from service.client.sweeping.display import watching_sweep
    from service.client.waiting import wait_for

    try:
        with watching_sweep(handle, sys.stdout if as_json else sys.stderr, as_json=as_json) as show:
            wait_for(handle, show, timeout=None)
    except KeyboardInterrupt:
        note(f"\nIt goes on; see `cbam sweep watch {handle.id}`, `cbam sweep cancel {handle.id}`.")
        raise typer.Exit(130) from None


def _exit_by(handle: "SweepHandle") -> None:
    if handle.state is not StudyState.SUCCEEDED:
        note(f"{handle.view.name}: {handle.state} {handle.view.message}".rstrip())
        raise typer.Exit(1)


def _print_result(result: "SweepResult") -> None:
    from service.client.sweeping.display import columns_and_rows

    columns, rows = columns_and_rows(result, MOST_SHOWN)
    print_table(table(columns, rows))
    if len(result.trials) > MOST_SHOWN:
        note(f"{len(result.trials) - MOST_SHOWN} more: `cbam sweep trials {result.study_id}`")
    for warning in result.warnings:
        note(warning)
