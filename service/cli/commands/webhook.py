"""`cbam webhook add`, `list`, `enable`, `disable`, `remove`, `test`, `deliveries`: URLs that are told of changes."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import AsJson, note, print_json, print_table, say, table
from service.domain.states import State

if TYPE_CHECKING:
    from service.schemas.webhooks import DeliveryView

Id = Annotated[str, typer.Argument(help="Id of a webhook.", metavar="ID", show_default=False)]
LOOK_SECONDS = 0.3
PATIENCE_SECONDS = 20.0  # a look of the sender, and the ten seconds that a receiver has


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(help="Have URLs told of changes of state.", no_args_is_help=True)
    for verb in (add, enable, disable, remove, deliveries):
        group.command()(verb)
    group.command("list")(list_webhooks)
    group.command("test")(try_out)
    app.add_typer(group, name="webhook")


def add(
    url: Annotated[str, typer.Argument(help="Where the messages go.", show_default=False)],
    state: Annotated[list[State] | None, typer.Option(help="Only of these states; may be repeated.")] = None,
    project: Annotated[str | None, typer.Option(help="Only of this project.")] = None,
    everyone: Annotated[bool, typer.Option("--everyone", help="Of other owners' experiments too.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have a URL told. The secret that signs the messages is printed this once."""
    from service.client.client import Client

    with Client() as client:
        made = client.create_webhook(url, states=state or (), project=project, everyone=everyone)
    if as_json:
        print_json(made)
        return
    note(f"webhook {made.id}; its secret is shown this once:")
    say(made.secret)


def list_webhooks(as_json: AsJson = False) -> None:
    """List your webhooks; an admin sees everybody's."""
    from service.client.client import Client

    with Client() as client:
        found = client.webhooks()
    if as_json:
        print_json(found)
        return
    rows = [
        (w.id, w.owner, w.url, " ".join(w.states) or "all", w.project or "", "" if w.enabled else "disabled")
        for w in found
    ]
    print_table(table(("id", "owner", "URL", "states", "project", ""), rows))


def enable(webhook_id: Id, as_json: AsJson = False) -> None:
    """Have a webhook told again."""
    _enable(webhook_id, True, as_json=as_json)


def disable(webhook_id: Id, as_json: AsJson = False) -> None:
    """Have a webhook told nothing for the time being."""
    _enable(webhook_id, False, as_json=as_json)


def _enable(webhook_id: str, enabled: bool, *, as_json: bool) -> None:
    from service.client.client import Client

    with Client() as client:
        shown = client.enable_webhook(webhook_id, enabled)
    if as_json:
        print_json(shown)
        return
    note(f"{webhook_id} is {'enabled' if enabled else 'disabled'}")


def remove(webhook_id: Id, as_json: AsJson = False) -> None:
    """Remove a webhook, and what it was still to be told."""
    from service.client.client import Client

    with Client() as client:
        client.remove_webhook(webhook_id)
    if as_json:
        print_json({"removed": [webhook_id]})
        return
    note(f"{webhook_id} is removed")


def try_out(webhook_id: Id, as_json: AsJson = False) -> None:
    """Send a message that says nothing, and see whether it arrives. Exit code 0 only if it does."""
    from service.client.client import Client

    deadline = time.monotonic() + PATIENCE_SECONDS
    with Client() as client:
        told = client.test_webhook(webhook_id)
        while told.state == "pending" and not told.error and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            told = client.webhook_delivery(webhook_id, told.id)
    if as_json:
        print_json(told)
    else:
        say(_result(told))
    if told.state != "delivered":
        raise typer.Exit(1)


def deliveries(
    webhook_id: Id,
    limit: Annotated[int, typer.Option("-n", min=1, max=200, help="How many.")] = 20,
    as_json: AsJson = False,
) -> None:
    """Show the last messages to a webhook, the newest first."""
    from service.client.client import Client

    with Client() as client:
        found = client.webhook_deliveries(webhook_id, limit=limit)
    if as_json:
        print_json(found)
        return
    rows = [(f"{d.created_at:%Y-%m-%d %H:%M:%S}", d.experiment_id or "", d.tries, _result(d)) for d in found]
    print_table(table(("at (UTC)", "experiment", ">tries", ""), rows))


def _result(told: "DeliveryView") -> str:
    if told.state == "delivered":
        return f"arrived, answered {told.status}"
    if told.error:
        return told.error + ("" if told.state == "failed" else "; it will be tried again")
    return "is not sent yet; does a dispatcher run?"
