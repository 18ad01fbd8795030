"""`cbam completion`: have the shell complete verbs and options."""

from enum import StrEnum
from typing import Annotated

import typer


class Shell(StrEnum):
    """Those that can."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(completion)


def completion(shell: Annotated[Shell, typer.Argument(help="Which shell's.", show_default=False)]) -> None:
    """Print the script that completes `cbam`, e.g. for ~/.bashrc: eval "$(cbam completion bash)"."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    typer.echo(get_completion_script(prog_name="cbam", complete_var="_CBAM_COMPLETE", shell=shell.value))
