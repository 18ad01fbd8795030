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
        found = client.list_files(whole(client, experiment_id), pattern)
    for one in found.unreadable:
        note(f"{one.path}: {one.detail}")
    if as_json:
        print_json(found.items)
        return
    rows = [(file.path, file.kind, size_of(file.size), f"{file.modified:%Y-%m-%d %H:%M:%S}") for file in found.items]
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

    What is there already is not fetched again; what was cut off is gone on with. One that fails does not stop the
    others: at the end it is named, and the exit code is 1.
    """
    from service.client.client import Client
    from service.client.download_display import downloading
    from service.client.files import require_all

    with Client() as client:
        experiment_id = whole(client, experiment_id)
        wanted = client.wanted_files(experiment_id, pattern)
        results = []
        with downloading(sys.stderr, wanted.items) as display:
            for one in client.downloads(experiment_id, wanted.items, to, report=display.report):
                display.done(one)
                results.append(one)
    for one in results:
        if one.path is None and one.error is None:
            note(f"{one.file.path} has been removed meanwhile")
    fetched = [one for one in results if one.path is not None]
    if as_json:
        print_json({"files": [{"path": str(one.path), "fetched": not one.was_there} for one in fetched]})
    else:
        there = sum(one.was_there for one in fetched)
        note(f"{len(fetched) - there} files downloaded" + f", {there} were there" * bool(there))
    require_all(wanted, results)
