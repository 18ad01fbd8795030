"""`cbam demo`: the main job on real input. A small network plain, with SE and with CBAM, over paired seeds."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.commands.compare_watching import print_result
from service.cli.commands.stack import addresses, make_stack, reporting, start_stack
from service.cli.comparison_specs import example
from service.cli.output import AsJson, note, print_json, say
from service.client.local_url import local_home, public_url
from service.domain.studies import StudyState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.client.comparing.handle import ComparisonHandle
    from service.schemas.comparisons import ComparisonSpec

SOURCE = "the example"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(demo)


def demo(
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="For each variant; fewer than 8 get no verdict.", metavar="N")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running for a look around.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare ResNet-20 plain, with SE and with CBAM on handwritten digits. 24 short trainings: minutes on two cores.

    On the server at CBAM_URL, where that is set; else on the local stack, which is started for it.
    """
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _leave)  # so that what was started is stopped then, too
    spec = spec_of(seeds)
    if url := os.environ.get("CBAM_URL"):
        state = _compare(spec, url, {"API": public_url(url)}, None, as_json=as_json)
    else:
        state = _on_local_stack(spec, keep=keep, as_json=as_json)
    if state is not StudyState.SUCCEEDED:
        raise typer.Exit(1)


def spec_of(seeds: int | None) -> "ComparisonSpec":
    """The comparison that `cbam compare init` prints, with so many seeds; with its own where that is None."""
    from cbam_core.spec import fields_in
    from service.client.comparing.specs import make_study
    from service.schemas.comparisons import ComparisonSpec

    fields = fields_in(example(), source=SOURCE) | ({} if seeds is None else {"seeds": seeds})
    return make_study(ComparisonSpec, fields, source=SOURCE)


def _on_local_stack(spec: "ComparisonSpec", *, keep: bool, as_json: bool) -> StudyState:
    """Start the stack where it does not run, and stop it again where it did not and is not to be kept."""
    was_running = make_stack().is_running()
    try:
        record = start_stack()
        state = _compare(spec, record.url, addresses(record), local_home() / "demo", as_json=as_json)
    finally:
        if not keep and not was_running:
            with reporting() as report:
                make_stack(report).down()
    if keep or was_running:
        note("everything goes on running; `cbam down` stops it")
    else:
        note("stopped; `cbam up` brings it back with these runs, `cbam demo --keep` leaves it running")
    return state


def _leave(signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def _compare(
    spec: "ComparisonSpec", url: str, places: "Mapping[str, object]", folder: Path | None, *, as_json: bool
) -> StudyState:
    """Run the comparison with a live table, then say what came out. Whatever interrupts the watching cancels it."""
    from service.client.client import Client

    with Client(url) as client:
        handle = client.compare(spec)
        note(f"{handle.view.name}: {handle.view.trials.planned} runs; while they run, the numbers are provisional")
        try:
            handle.wait(progress=True)
        except BaseException:
            with suppress(Exception):
                handle.cancel()
            raise
        if as_json:
            print_json(handle.result)
        else:
            _show(handle, {**places, **({} if folder is None else _files(handle, folder))})
    return handle.state


def _show(handle: "ComparisonHandle", places: "Mapping[str, object]") -> None:
    print_result(handle.result)
    if handle.state is not StudyState.SUCCEEDED:
        note(f"{handle.view.name}: {handle.state} {handle.view.message}".rstrip())
    for name, address in places.items():
        say(f"{name:<8} {address}")
    note(f"`cbam compare report {handle.id}` writes the report, `cbam list --study {handle.id}` lists the trainings")


def _files(handle: "ComparisonHandle", folder: Path) -> dict[str, Path]:
    """Write the figure and the report into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{handle.view.name}-{handle.id}"
    return {
        "figure": handle.save_figure(folder / f"{name}.svg"),
        "report": handle.save_report(folder / f"{name}.html"),
    }
