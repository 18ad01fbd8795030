"""The `cbam` command. Each file beside this one is a group of verbs; nothing heavy is imported before a verb needs it."""

import sys

import typer

from cbam_core.errors import CbamError
from service.cli import demo, experiments, logs, stack, submit, train
from service.cli.output import complain

app = typer.Typer(
    name="cbam",
    help="Does CBAM help on my data and backbone, by how much, at what cost? Submit experiments, watch, review.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (stack, demo, submit, experiments, logs, train):
    group.register(app)


def main() -> None:
    """Run the command; what goes wrong is one clear message and exit code 1, never a traceback."""
    try:
        app()
    except CbamError as error:
        complain(str(error))
        sys.exit(1)
