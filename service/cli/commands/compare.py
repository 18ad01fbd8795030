"""`cbam compare`: from a question to a verdict. Make, preview, list, show, watch, report comparisons."""

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.commands.compare_changes import add_seeds, delete, replicate, verbs
from service.cli.commands.compare_watching import figure, follow, print_result, report, watch
from service.cli.commands.submit import costs
from service.cli.comparison_specs import File, Overrides, example, read_comparison_file
from service.cli.ids import ComparisonId, whole_comparison
from service.cli.output import AsJson, note, print_json, print_table, say, table
from service.cli.specs import read_overrides
from service.client.local_url import public_url
from service.domain.studies import StudyState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.client.client import Client
    from service.schemas.comparison_results import ResultView
    from service.schemas.studies import ComparisonPreview, ComparisonView, DecisionView


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(help="Compare variants over seeds: from a question to a verdict.", no_args_is_help=True)
    for verb in (init, preview, run, show, watch, report, figure, trials, decisions):
        group.command()(verb)
    group.command("list")(list_comparisons)
    group.command("add-seeds")(add_seeds)
    group.command()(replicate)
    for name, meaning, verb in verbs():
        group.command(name, help=meaning)(verb)
    group.command()(delete)
    app.add_typer(group, name="compare")


def init(as_json: AsJson = False) -> None:
    """Print a comparison to begin with, as YAML: plain, SE and CBAM on the small digits."""
    from cbam_core.yaml_text import parse_yaml

    if as_json:
        print_json(parse_yaml(example()))
    else:
        say(example(), nl=False)


def run(
    file: File,
    *,
    overrides: Overrides = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show progress until it has ended.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a comparison. With --watch the exit code is 0 only if it ends with a result."""
    spec = read_comparison_file(file, read_overrides(overrides))
    from service.client.client import Client

    with Client() as client:
        handle = client.compare(spec)
        if watch:
            note(f"{handle.id}  {handle.view.name}")
            follow(handle)
        if as_json:
            print_json(handle.view)
        elif watch:
            print_result(handle.result)
        else:
            say(f"{handle.id}  {handle.view.name}")
            note(f"{handle.view.trials.planned} runs; see `cbam compare watch {handle.id}`")
        if watch and handle.state is not StudyState.SUCCEEDED:
            note(f"{handle.view.name}: {handle.state} {handle.view.message}".rstrip())
            raise typer.Exit(1)


def preview(file: File, *, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Show what a comparison would run, what each variant costs, and what its seeds can show. Nothing is stored."""
    spec = read_comparison_file(file, read_overrides(overrides))
    from service.client.client import Client

    with Client() as client:
        shown = client.preview_comparison(spec)
    if as_json:
        print_json(shown)
        return
    columns = ("variant", ">parameters", ">of attention", ">MACs", ">of attention", ">sites", ">steps")
    print_table(table(columns, [(name, *costs(view)) for name, view in shown.variants.items()]))
    for line in _plan(shown):
        say(line)
    warnings = [(w.pointer, w.detail, name) for name, view in shown.variants.items() for w in view.warnings]
    for pointer, detail in dict.fromkeys((pointer, detail) for pointer, detail, _ in warnings):
        named = [name for *warning, name in warnings if warning == [pointer, detail]]
        note(f"{', '.join(named)}: {pointer}: {detail}")


def _plan(shown: "ComparisonPreview") -> "list[str]":
    """What would run, and the power of it."""
    at_first = f", {shown.first_runs} of them before the number of seeds is chosen" * (shown.first_runs < shown.runs)
    most = "at most " * (shown.first_runs < shown.runs)
    lines = [f"{most}{shown.runs} runs{at_first}, {shown.epochs:,} epochs in all; seeds {_seeds(shown.seeds)}"]
    if shown.probes:
        seconds = shown.probe_seconds / shown.probes
        probes = "a probe" if shown.probes == 1 else f"{shown.probes} probes, one after the other,"
        lines.append(f"then {probes} of what a variant costs: {seconds:.0f} s each, and the start")
    for power in shown.power:
        needed = power.seeds_for_margin
        margin = "" if needed is None else f"; {needed} seeds show the margin"
        lines.append(
            f"where seeds differ by {100 * power.sd:.2g} points (standard deviation), a difference of "
            f"{100 * power.smallest_difference:.2g} points is shown with power 0.8{margin}"
        )
    return lines


def _seeds(seeds: tuple[int, ...]) -> str:
    return ", ".join(map(str, seeds[:3])) + ", …" * (len(seeds) > 3)


def list_comparisons(
    *,
    state: Annotated[list[StudyState] | None, typer.Option(help="Only those in this state; may be repeated.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only those of this user.")] = None,
    limit: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List comparisons, the newest first."""
    from service.client.client import Client
    from service.client.comparing.display import counts

    with Client() as client:
        found = client.comparisons(state=state or (), owner=owner, page_size=min(limit, 200))
        views = list(islice(found, limit))
    if as_json:
        print_json(views)
        return
    rows = [
        (view.id, view.name, view.project, view.state, counts(view), f"{' '.join(view.variants)}, {view.seeds} seeds")
        for view in views
    ]
    print_table(table(("id", "name", "project", "state", "", ""), rows))


def show(comparison_id: ComparisonId, as_json: AsJson = False) -> None:
    """Show one comparison: state, counts, the table of its variants, the verdicts in words. As JSON: its result."""
    from service.client.client import Client

    with Client() as client:
        handle = client.comparison(whole_comparison(client, comparison_id))
        result = handle.result
        if as_json:
            print_json(result)
            return
        print_table(table(("", ""), _facts(client, handle.view, result)))
        print_result(result)


def _points(share: float) -> str:
    number = f"{100 * share:g}"
    return f"{number} {'point' if number == '1' else 'points'}"


def _facts(client: "Client", view: "ComparisonView", result: "ResultView") -> list[tuple[str, object]]:
    from service.client.comparing.display import counts, seeds_of

    margin = "" if result.margin is None else f", differences below {_points(result.margin)} do not matter"
    images = "" if result.images is None else f" of {result.images:,} images"
    facts: list[tuple[str, object]] = [
        ("id", view.id),
        ("name", view.name),
        ("project", view.project),
        ("state", "  ".join(filter(None, (view.state, view.reason, counts(view))))),
        ("message", view.message),
        ("metric", f"{view.metric}{images}{margin}"),
        ("seeds", seeds_of(result)),
        ("API", f"{public_url(client.base_url)}{view.links.self}"),
        ("MLflow", view.links.mlflow or ""),
        ("charts", view.links.mlflow_charts or ""),
    ]
    return [(name, value) for name, value in facts if value != ""]


def trials(comparison_id: ComparisonId, as_json: AsJson = False) -> None:
    """List the runs of a comparison: their seeds, experiments, states, and what they reached."""
    from service.client.client import Client

    with Client() as client:
        found = client.comparison(whole_comparison(client, comparison_id)).trials()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            *(trial.number, trial.variant, "cost" if trial.kind == "probe" else trial.block, trial.seed),
            *(trial.experiment_id, trial.state or "deleted"),
            "" if trial.correct is None or not trial.images else f"{trial.correct} of {trial.images}",
        )
        for trial in found
    ]
    print_table(table((">run", "variant", ">block", ">seed", "experiment", "state", ">right"), rows))


def decisions(comparison_id: ComparisonId, as_json: AsJson = False) -> None:
    """List what was decided of a comparison, when and by whom."""
    from service.client.client import Client

    with Client() as client:
        found = client.comparison(whole_comparison(client, comparison_id)).decisions()
    print_decisions(found, as_json=as_json)


def print_decisions(found: "Sequence[DecisionView]", *, as_json: bool) -> None:
    """Print what was decided of a study of any kind: a line for each."""
    if as_json:
        print_json(found)
        return
    rows = [(f"{one.at:%Y-%m-%d %H:%M:%S}", one.kind, one.to_state or _told(one.payload), one.by) for one in found]
    print_table(table(("at (UTC)", "", "", "by"), rows))


def _told(payload: dict[str, object]) -> str:
    return "  ".join(f"{name} {value}" for name, value in payload.items())
