"""`cbam cluster` and `cbam templates`: what there is."""

from typing import Annotated

import typer

from service.cli.output import AsJson, note, print_json, print_table, say, table


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(cluster)
    app.command()(templates)


def cluster(as_json: AsJson = False) -> None:
    """Show the machines, what of them is free, and how many experiments are in each state."""
    from service.client.client import Client

    with Client() as client:
        shown = client.cluster()
    if as_json:
        print_json(shown)
        return
    rows = [(node.id[:12], *_shares(node.cpus, node.free_cpus, node.gpus, node.free_gpus)) for node in shown.nodes]
    rows.append(("all", *_shares(shown.cpus, shown.free_cpus, shown.gpus, shown.free_gpus)))
    print_table(table(("node", ">CPUs", ">free", ">GPUs", ">free"), rows))
    counts = [(state, count) for state, count in shown.experiments.items() if count]
    print_table(table(("state", ">experiments"), counts or [("none", 0)]))
    if not shown.reachable:
        note(f"the cluster cannot be seen: {shown.message}")
    if shown.leader is None:
        note("no dispatcher leads: experiments wait in the queue")


def templates(
    name: Annotated[str | None, typer.Argument(help="Print this one, as YAML.", show_default=False)] = None,
    as_json: AsJson = False,
) -> None:
    """List the specs that the server has; with a name, print one, to be changed and submitted."""
    from service.client.client import Client

    with Client() as client:
        if name is None:
            found = client.templates()
            if as_json:
                print_json(found)
            else:
                print_table(table(("name", ""), [(item.name, item.description) for item in found]))
            return
        template = client.template(name)
    if as_json:
        print_json(template)
        return
    from cbam_core.yaml_text import to_yaml

    say(to_yaml(template.spec), nl=False)


def _shares(cpus: float, free_cpus: float, gpus: float, free_gpus: float) -> tuple[str, ...]:
    return tuple(f"{number:g}" for number in (cpus, free_cpus, gpus, free_gpus))
