"""`cbam backup` and `cbam restore`: the database as one file, and back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import AsJson, note, print_json, say

if TYPE_CHECKING:
    from service.database.backup import Manifest


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command()(backup)
    app.command()(restore)


def backup(
    target: Annotated[
        Path | None, typer.Argument(help="Where to write it; a new file below $CBAM_HOME/backups.", metavar="FILE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Back up the database while everything runs, and check what was written. Exit code 0 only if all is well."""
    from service.database.backup import make_backup, new_name
    from service.settings import Settings

    settings = Settings()
    target = target or new_name(settings.home / "backups")
    manifest = make_backup(settings.database_url, target)
    _show(manifest, target, as_json=as_json)
    if manifest.problems:
        for problem in manifest.problems:
            note(f"the database has a problem: {problem}")
        raise typer.Exit(1)


def restore(
    source: Annotated[Path, typer.Argument(help="A file that `cbam backup` wrote.", metavar="FILE")],
    check: Annotated[bool, typer.Option("--check", help="Only look whether the backup is whole.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in the place of the database. Refused while anything uses it; what was there is kept as a backup."""
    from service.database.backup import check_backup, restore_backup
    from service.settings import Settings

    settings, kept = Settings(), None
    if check:
        manifest = check_backup(source)
    else:
        manifest, kept = restore_backup(settings.database_url, source, keep_in=settings.home / "backups")
    _show(manifest, source, as_json=as_json)
    if kept is not None:
        note(f"what was there before is kept in {kept}")


def _show(manifest: "Manifest", path: Path, *, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        print_json({"file": str(path), **asdict(manifest)})
        return
    rows = ", ".join(f"{count} {name}" for name, count in manifest.rows.items() if name != "alembic_version")
    say(f"{path}: {manifest.database}, {manifest.bytes:,} bytes, made {manifest.made_at}, holds {rows}")
