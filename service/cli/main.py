"""The `cbam` command. Each file beside this one is a group of verbs, which import what is heavy when they need it."""

import os
import sys

import typer

from cbam_core.errors import CbamError, SpecError
from service.cli import (
    backup,
    catalogue,
    demo,
    edit,
    experiments,
    export,
    logs,
    stack,
    submit,
    token,
    train,
    watch,
    webhook,
)
from service.cli.output import complain

app = typer.Typer(
    name="cbam",
    help="Does CBAM help on my data and backbone, by how much, at what cost? Submit experiments, watch, review.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (
    *(stack, demo, submit, experiments, edit, logs, watch, train, export),
    *(catalogue, token, webhook, backup),
):
    group.register(app)


def main() -> None:
    """Run the command. What goes wrong is one clear message, never a traceback; exit code 2 for a bad spec, else 1."""
    try:
        app()
    except CbamError as error:
        complain(str(error))
        sys.exit(2 if isinstance(error, SpecError) else 1)
    except BrokenPipeError:  # `cbam list | head`: whoever read has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
