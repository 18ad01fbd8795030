"""The `cbam` command. Each file beside this one is a group of verbs, which import what is heavy when they need it."""

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from cbam_core.errors import CbamError, SpecError
from service.cli.commands import (
    backup,
    catalog,
    compare,
    demo,
    edit,
    experiments,
    export,
    files,
    logs,
    prune,
    stack,
    submit,
    sweep,
    token,
    train,
    watch,
    webhook,
)
from service.cli.extras import Commands
from service.cli.output import complain, say
from service.errors import MissingExtra

app = typer.Typer(
    name="cbam",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    *(stack, demo, submit, experiments, edit, prune, logs, files, watch, train, export),
    *(compare, sweep, catalog, token, webhook, backup),
):
    group.register(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"cbam-lab {version('cbam-lab')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Does CBAM help on my data and backbone, by how much, at what cost? Submit experiments, watch, review."""


def main() -> None:
    """Run the command. What goes wrong is one clear message, never a traceback.

    Exit code 2 for a bad spec and for an extra that is not installed, else 1.
    """
    try:
        app()
    except CbamError as error:
        complain(str(error))
        sys.exit(2 if isinstance(error, SpecError | MissingExtra) else 1)
    except BrokenPipeError:  # `cbam list | head`: whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
