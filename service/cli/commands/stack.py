"""`cbam up`, `down`, `doctor`: the local stack."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.extras import need_torch
from service.cli.output import AsJson, note, print_json, print_table, say, table

if TYPE_CHECKING:
    from service.stack.record import StackRecord
    from service.stack.stack import Report, Stack

FOREIGN = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(up)
    app.command()(down)
    app.command()(doctor)


def up(
    data_roots: Annotated[
        list[Path] | None,
        typer.Option(
            "--data-root",
            help="A folder that specs may read images from (`data.root`); may be repeated. Else CBAM_DATA_ROOTS.",
            metavar="FOLDER",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Stop what runs first, and start it with the settings of now.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Start the local stack: a Ray head, MLflow, the API and the dispatcher. Starts only what is missing.

    What runs keeps its settings; where others are wanted, it says which, and asks for --restart.
    """
    record = start_stack(data_roots or (), restart=restart)
    if as_json:
        print_json(addresses(record))
        return
    for name, address in addresses(record).items():
        say(f"{name:<8} {address}")


def down(as_json: AsJson = False) -> None:
    """Stop what `cbam up` started, and nothing else. Experiments that run go on at the next `up`."""
    with reporting() as report:
        stopped = make_stack(report).down()
    if as_json:
        print_json({"stopped": stopped})
        return
    note(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def doctor(as_json: AsJson = False) -> None:
    """Check everything the stack needs, and say what to do about what is missing. Exit code 0 only if all is well."""
    from service.stack.doctor import examine

    checks = examine(make_stack())
    if as_json:
        print_json({check.name: {"ok": check.ok, "found": check.found, "advice": check.advice} for check in checks})
    else:
        rows = [("ok" if c.ok else "WRONG", c.name, c.found, "" if c.ok else c.advice) for c in checks]
        print_table(table(("", "check", "found", "what to do"), rows))
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def start_stack(data_roots: Sequence[Path] = (), *, restart: bool = False) -> "StackRecord":
    """Bring the stack up with a display of its progress."""
    need_torch()
    from service.settings import unknown_variables

    for root in data_roots:
        if ":" in str(root):
            raise typer.BadParameter(f"{root}: a colon stands between two folders", param_hint="--data-root")
    for name in FOREIGN:
        if name in os.environ:
            note(f"{name} is set, and not used: the local stack has its own")
    for line in unknown_variables():
        note(line)
    with reporting() as report:
        return make_stack(report, data_roots).up(restart=restart)


def make_stack(report: "Report | None" = None, data_roots: Sequence[Path] = ()) -> "Stack":
    """The stack that the environment describes. Raises StackError where it makes no sense."""
    from pydantic import ValidationError

    from service.errors import StackError
    from service.stack.settings import StackSettings
    from service.stack.stack import Stack, say_nothing

    try:
        settings = StackSettings(data_roots=tuple(data_roots)) if data_roots else StackSettings()
        return Stack(settings, report or say_nothing)
    except ValidationError as error:
        problems = (f"CBAM_{'_'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in error.errors())
        raise StackError("\n".join(problems)) from error


def addresses(record: "StackRecord") -> dict[str, object]:
    """Where everything is, as people open it."""
    from service.domain.mlflow_links import home_link

    mlflow = home_link(record.mlflow_url)
    return {"API": record.url, "API docs": f"{record.url}/docs", "MLflow": mlflow, "Ray": record.ray_address}


@contextmanager
def reporting() -> "Iterator[Report]":
    """Shows what happens to the parts: a line for each that moves on a terminal, plain lines in a pipe."""
    if not sys.stderr.isatty():
        yield lambda part, what, seconds: note(f"{seconds:6.1f} s  {part} {what}")
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description:<24}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks: dict[str, TaskID] = {}

        def report(part: str, what: str, _seconds: float) -> None:
            if part not in tasks:
                tasks[part] = progress.add_task("", total=1)
            progress.update(tasks[part], description=f"{part} {what}", completed=int(what == "ready"))

        yield report
