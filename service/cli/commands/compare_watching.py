"""`cbam compare watch`, `report` and `figure`: see what a comparison shows, now and at its end."""

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from service.cli.ids import ComparisonId, whole_comparison
from service.cli.output import AsJson, AsJsonLines, note, print_json, print_table, say, table
from service.domain.studies import StudyState

if TYPE_CHECKING:
    from service.client.comparing.handle import ComparisonHandle
    from service.schemas.comparison_results import ResultView

Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write it into this file.", metavar="FILE")]


def watch(comparison_id: ComparisonId, as_json: AsJsonLines = False) -> None:
    """Show a live table until a comparison has ended, then its verdicts. Exit code 0 only if it ends with a result.

    A pipe gets a line for each change; with --json each is a line of JSON.
    """
    from service.client.client import Client

    with Client() as client:
        handle = client.comparison(whole_comparison(client, comparison_id))
        follow(handle, as_json=as_json)
        if not as_json:
            print_result(handle.result)
        if handle.state is not StudyState.SUCCEEDED:
            if handle.view.message:
                note(f"{handle.view.name}: {handle.view.message}")
            raise typer.Exit(1)


def follow(handle: "ComparisonHandle", *, as_json: bool = False) -> None:
    """Show progress until it has ended. Ctrl-C leaves it running.

    Progress goes to stderr, but as JSON it is the answer: to stdout.
    """
    from service.client.comparing.display import watching_comparison
    from service.client.waiting import wait_for

    stream = sys.stdout if as_json else sys.stderr
    try:
        with watching_comparison(handle, stream, as_json=as_json, transient=sys.stdout.isatty()) as show:
            wait_for(handle, show, timeout=None)
    except KeyboardInterrupt:
        note(f"\nIt goes on; see `cbam compare watch {handle.id}`, `cbam compare cancel {handle.id}`.")
        raise typer.Exit(130) from None


def print_result(result: "ResultView") -> None:
    """Print the table of the variants, as far as the terminal has room for it, and the verdicts in words."""
    from service.client.comparing.table import fitting_table, words

    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    columns, rows, gone = fitting_table(result, width)
    print_table(table(columns, rows))
    if gone:
        note(f"a wider terminal, or a pipe, shows {', '.join(gone)} too")
    for line in words(result):
        say(line)


def report(
    comparison_id: ComparisonId,
    *,
    format: Annotated[
        Literal["html", "markdown"] | None,
        typer.Option("--format", help="By default by the name of the file, else html."),
    ] = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a comparison: one HTML file that needs nothing else, or Markdown."""
    from service.client.client import Client

    with Client() as client:
        handle = client.comparison(whole_comparison(client, comparison_id))
        if output is not None:
            _say_file(handle.save_report(output, format=format), as_json=as_json)
            return
        text = handle.report(format=format or "html")
    if as_json:
        print_json({"format": format or "html", "report": text})
    else:
        say(text, nl=False)


def figure(comparison_id: ComparisonId, *, output: Output = None, as_json: AsJson = False) -> None:
    """Write the figure of a comparison, as SVG: the differences with their intervals and the margin."""
    from service.client.client import Client

    with Client() as client:
        handle = client.comparison(whole_comparison(client, comparison_id))
        if output is not None:
            _say_file(handle.save_figure(output), as_json=as_json)
            return
        text = handle.figure()
    if as_json:
        print_json({"figure": text})
    else:
        say(text, nl=False)


def _say_file(path: Path, *, as_json: bool) -> None:
    if as_json:
        print_json({"file": str(path)})
    else:
        say(str(path))
