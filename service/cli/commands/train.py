"""`cbam train`: the same training with no service and no Ray."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import AsJson


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(train)


def train(
    spec: Annotated[Path, typer.Argument(help="Experiment spec, YAML or JSON.", metavar="SPEC")],
    storage: Annotated[Path, typer.Option(help="Where logs, checkpoints and weights go.")] = Path("runs"),
    name: Annotated[str | None, typer.Option("--id", help="Name of the experiment's folder; the spec's name.")] = None,
    as_json: AsJson = False,
) -> None:
    """Train a spec here and now: no server, no Ray. The same as `python -m workers SPEC`."""
    from workers.__main__ import main

    options = (*(("--id", name) if name else ()), *(("--json",) if as_json else ()))
    raise typer.Exit(main([str(spec), "--storage", str(storage), *options]))
