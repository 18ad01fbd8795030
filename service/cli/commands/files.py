"""`cbam files` and `cbam download`: what an experiment has left, and how to get it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli.ids import Id, whole
from service.cli.output import AsJson, note, print_json, print_table, table

Pattern = Annotated[
    str, typer.Argument(help="As in a shell, for the path or the name: 'export/*', '*.log'.", metavar="[PATTERN]")
]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(files)
    app.command()(download)


def files(experiment_id: Id, pattern: Pattern = "*", as_json: AsJson = False) -> None:
    """List the files of an experiment: logs, weights, exports, checkpoints, predictions, figures."""
    from service.client.client import Client
    from service.client.download_display import size_of

    with Client() as client:
        found = client.files(whole(client, experiment_id), pattern)
    if as_json:
        print_json(found)
        return
    rows = [(file.path, file.kind, size_of(file.size), f"{file.modified:%Y-%m-%d %H:%M:%S}") for file in found]
    print_table(table(("path", "kind", ">size", "modified (UTC)"), rows))


def download(
    experiment_id: Id,
    pattern: Pattern = "*",
    *,
    to: Annotated[
        Path | None, typer.Option(help="Folder for the files; one of the experiment's id where left out.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download the files of an experiment, each checked by its SHA-256.

    What is there already is not fetched again; what was cut off is gone on with.
    """
    from service.client.client import Client
    from service.client.download_display import downloading

    with Client() as client:
        experiment_id = whole(client, experiment_id)
        wanted = client.wanted_files(experiment_id, pattern)
        results = []
        with downloading(sys.stderr, wanted) as display:
            for one in client.downloads(experiment_id, wanted, to, report=display.report):
                display.done(one.file)
                results.append(one)
    for one in results:
        if one.path is None:
            note(f"{one.file.path} has been removed meanwhile")
    fetched = [one for one in results if one.path is not None]
    if as_json:
        print_json({"files": [{"path": str(one.path), "fetched": not one.was_there} for one in fetched]})
        return
    there = sum(one.was_there for one in fetched)
    note(f"{len(fetched) - there} files downloaded" + f", {there} were there" * bool(there))
