"""`cbam prune`: remove checkpoints, or all files, of experiments that ended long ago; first as a dry run"""

import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import AsJson, note, print_json, print_table, say, table
from service.domain.pruning import PruneScope
from service.domain.values import human_bytes

if TYPE_CHECKING:
    from service.client.client import Client
    from service.schemas.pruning import PruneResult

MOST_AT_ONCE = 200
UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
LONGEST = timedelta(days=36500)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(prune)


def prune(
    *,
    older_than: Annotated[
        str, typer.Option(help="Those that ended so long ago: 12h, 30d, 8w.", metavar="AGE", show_default=False)
    ],
    all_files: Annotated[
        bool, typer.Option("--all-files", help="Logs, metrics, results and exported weights too, not only checkpoints.")
    ] = False,
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    owner: Annotated[str | None, typer.Option(help="Those of this user instead of your own; for admins.")] = None,
    all_owners: Annotated[bool, typer.Option("--all-owners", help="Those of all users; for admins.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be removed; do not ask.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove it without asking.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the checkpoints of experiments that ended long ago; those that are paused have not ended.

    Shows first what would go, and asks; in a pipe it removes nothing without --yes. The experiments stay in the list,
    with spec, logs, metrics and exported weights, but can no longer be retried.
    """
    if owner is not None and all_owners:
        raise typer.BadParameter("either --owner or --all-owners")
    before = datetime.now(UTC) - _age(older_than)
    scope = PruneScope.ALL if all_files else PruneScope.CHECKPOINTS
    from service.client.client import Client

    with Client() as client:
        mine = None if all_owners else owner or client.whoami().name
        wanted = {"ended_before": before.isoformat(), "owner": mine, "project": project}
        found = list(_would_go(client, scope, {name: value for name, value in wanted.items() if value is not None}))
        removes = not dry_run and any(one.ok for one in found)
        if not as_json:
            _show(found, scope)
        if removes and not yes:
            removes = not as_json and sys.stdin.isatty() and typer.confirm("Remove them?", err=True)
            if not removes:
                note("nothing is removed; add --yes")
        if removes:
            found = [*_remove(client, scope, found), *(one for one in found if not one.ok)]
    _report(found, scope, removed=removes, as_json=as_json)


def _age(text: str) -> timedelta:
    parts = re.fullmatch(r"([0-9]{1,6})([hdw])", text.strip())
    age = None if parts is None else int(parts[1]) * UNITS[parts[2]]
    if age is None or not timedelta() < age <= LONGEST:
        raise typer.BadParameter(f"{text!r} is no age; write 12h, 30d or 8w", param_hint="--older-than")
    return age


def _would_go(client: "Client", scope: PruneScope, where: dict[str, Any]) -> "Iterator[PruneResult]":
    cursor: str | None = None
    while True:
        page = client.prune(where=where, what=scope, cursor=cursor)
        yield from page.results
        cursor = page.next_cursor
        if cursor is None:
            return


def _remove(client: "Client", scope: PruneScope, shown: "Sequence[PruneResult]") -> "Iterator[PruneResult]":
    """Exactly what was shown; what has been retried since is refused."""
    ids = [one.id for one in shown if one.ok]
    for start in range(0, len(ids), MOST_AT_ONCE):
        yield from client.prune(ids=ids[start : start + MOST_AT_ONCE], what=scope, dry_run=False).results


def _show(found: "Sequence[PruneResult]", scope: PruneScope) -> None:
    going = [one for one in found if one.ok]
    if not going:
        say("there is nothing to prune")
        return
    rows = [
        (one.id, one.name or "", one.owner or "", f"{one.ended_at:%Y-%m-%d}", human_bytes(one.bytes)) for one in going
    ]
    print_table(table(("id", "name", "owner", "ended", f">{scope}"), rows))
    say(f"{len(going)} experiments, {human_bytes(sum(one.bytes for one in going))}")


def _report(found: "Sequence[PruneResult]", scope: PruneScope, *, removed: bool, as_json: bool) -> None:
    gone = [one for one in found if one.ok]
    size = sum(one.bytes for one in gone)
    if as_json:
        results = [one.model_dump(mode="json") for one in found]
        print_json({"dry_run": not removed, "what": str(scope), "bytes": size, "results": results})
    elif removed:
        say(f"pruned {len(gone)} experiments: the dispatcher removes {human_bytes(size)}")
    for one in found:
        if one.problem is not None:
            note(f"{one.id}: {one.problem.detail}")
    if any(not one.ok for one in found):
        raise typer.Exit(1)
