"""`cbam demo`: the main job on real input. A small network plain, with SE and with CBAM."""

import os
import signal
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.commands.stack import addresses, make_stack, reporting, start_stack
from service.cli.commands.watch import follow
from service.cli.output import AsJson, note, print_json, print_table, say, table
from service.client.local_url import public_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.schemas.experiments import ExperimentView

PROJECT = "demo"
ATTENTIONS: dict[str, dict[str, Any]] = {
    "none": {"type": "none"},
    "se": {"type": "se", "reduction": 8},
    "cbam": {"type": "cbam", "reduction": 8},
}
ONE_SEED = "one seed each: it shows that everything works, not which is better; other seeds give other orders"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running for a look around.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train ResNet-20 plain, with SE and with CBAM on handwritten digits, and compare them. Minutes on two cores.

    On the server at CBAM_URL, where that is set; else on the local stack, which is started for it.
    """
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _leave)  # so that what was started is stopped then, too
    if url := os.environ.get("CBAM_URL"):
        views = _train_all(url)
        _show({"API": public_url(url)}, views, as_json=as_json)
    else:
        views = _on_local_stack(keep=keep, as_json=as_json)
    if any(view.state != "SUCCEEDED" for view in views):
        raise typer.Exit(1)


def _on_local_stack(*, keep: bool, as_json: bool) -> "Sequence[ExperimentView]":
    """Start the stack where it does not run, and stop it again where it did not and is not to be kept."""
    was_running = make_stack().is_running()
    try:
        record = start_stack()
        views = _train_all(record.url)
        _show(addresses(record), views, as_json=as_json)
    finally:
        if not keep and not was_running:
            with reporting() as report:
                make_stack(report).down()
    if keep or was_running:
        note("everything goes on running; `cbam down` stops it")
    else:
        note("stopped; `cbam up` brings it back with these runs, `cbam demo --keep` leaves it running")
    return views


def _leave(signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)


def spec_for(attention: str) -> dict[str, Any]:
    """The experiment with this attention; all else is equal."""
    return {
        "name": f"digits-{attention}",
        "project": PROJECT,
        "model": {"backbone": "cifar_resnet20", "attention": ATTENTIONS[attention]},
        "data": {"dataset": "digits", "image_size": 16},
        "train": {
            "epochs": 8,
            "global_batch_size": 64,
            "optimizer": {"type": "sgd", "lr": 0.1, "weight_decay": 5e-4},
            "schedule": {"type": "cosine", "warmup_epochs": 1},
        },
    }


def _train_all(url: str) -> "Sequence[ExperimentView]":
    """Submit the three and watch them; whatever interrupts the watching cancels them."""
    from service.client.client import Client

    with Client(url) as client:
        views = [client.submit(spec_for(attention)).view for attention in ATTENTIONS]
        try:
            return follow(client, views)
        except BaseException:
            for view in views:
                with suppress(Exception):
                    client.cancel(view.id)
            raise


def _show(places: "Mapping[str, object]", views: "Sequence[ExperimentView]", *, as_json: bool) -> None:
    if as_json:
        print_json(views)
        return
    columns = ("experiment", "state", ">test top-1", ">parameters", ">MACs", ">workers", ">images/s", ">wall time")
    print_table(table(columns, [_row(view) for view in views]))
    note(ONE_SEED)
    for name, address in places.items():
        say(f"{name:<10} {address}")
    for view in views:
        say(f"{'MLflow run':<10} {view.links.mlflow}  {view.name}")
        if view.message:
            note(f"{view.name}: {view.message}")


def _row(view: "ExperimentView") -> tuple[str, ...]:
    summary = view.summary
    top1, speed = view.metrics.get("test/top1"), summary.get("images_per_second")
    return (
        view.name,
        view.state,
        "" if top1 is None else f"{top1:.1%}",
        f"{summary['parameters']:,}" if "parameters" in summary else "",
        f"{summary['macs']:,}" if "macs" in summary else "",
        str(view.spec["resources"]["workers"]),
        "" if speed is None else f"{speed:.0f}",
        f"{summary['wall_seconds']:.1f} s" if "wall_seconds" in summary else "",
    )
