"""Backups of the database: one file, made while everything runs, checked when it is made and when it is restored.

The file is a zip of `database` (a SQLite file, or what pg_dump writes) and `manifest.json`: what it holds, with the
sha256 of the database. Checkpoints and logs are on shared storage, and are copied with the tools for files.
"""

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from service.database.backup_checks import known_revisions
from service.database.backup_engines import Damaged, Kept, kept_database
from service.database.engine import Database
from service.errors import BackupError
from workers.protocol.storage import make_folder, sync_file, sync_folder

FORMAT = 1
BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Manifest:
    """What a backup holds. `problems` is empty where the database was consistent."""

    made_at: str
    version: str
    database: str
    revision: str | None
    rows: dict[str, int]
    sha256: str
    bytes: int
    problems: list[str]
    format: int = FORMAT


def new_name(folder: Path, prefix: str = "cbam") -> Path:
    """A file name for a backup made now."""
    return folder / f"{prefix}-{datetime.now(UTC):%Y%m%d-%H%M%S}.zip"


def make_backup(database_url: str, target: Path) -> Manifest:
    """Write a backup while the service may be at work. Raises BackupError where there is nothing to back up.

    What is inconsistent is written too, and said in the manifest's `problems`: better that than no backup.
    """
    return _back_up(kept_database(database_url), target)


def _back_up(database: Kept, target: Path) -> Manifest:
    if target.exists():
        raise BackupError(f"{target} exists already")
    make_folder(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as folder:
        copy = Path(folder) / "database"
        seen = database.dump(copy)
        manifest = Manifest(
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=version("cbam-lab"),
            database=database.kind,
            revision=seen.revision,
            rows=seen.rows,
            sha256=_sha256(copy),
            bytes=copy.stat().st_size,
            problems=seen.problems,
        )
        draft = Path(folder) / "backup.zip"
        draft.touch(mode=0o600)  # it holds what the database holds: hashes of tokens, secrets of webhooks
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("manifest.json", json.dumps(asdict(manifest), indent=2))
            archive.write(copy, "database")
        sync_file(draft)
        draft.rename(target)
        sync_folder(target.parent)
    return manifest


def check_backup(source: Path) -> Manifest:
    """Whether a backup is whole. Raises BackupError where it is not, or is of a newer cbam-lab."""
    with _unpacked(source) as (manifest, _):
        return manifest


def restore_backup(database_url: str, source: Path, *, keep_in: Path) -> tuple[Manifest, Path | None]:
    """Put a backup in the place of the database, and bring it to the newest schema.

    What was there before is kept as a backup of its own in `keep_in`; returns its path, or None where there was
    nothing. Raises BackupError while anything uses the database, and where the backup or what came of it is not well.
    """
    with _unpacked(source) as (manifest, copy):
        database = kept_database(database_url)
        if manifest.database != database.kind:
            raise BackupError(f"{source} is of {manifest.database}; CBAM_DATABASE_URL names {database.kind}")
        with database.at_rest():
            kept = _keep(database, keep_in)
            database.load(copy, manifest.rows)
            seen = database.look()
        if seen.problems or seen.rows != manifest.rows:
            found = "; ".join(seen.problems) or f"{seen.rows} rows where the backup has {manifest.rows}"
            raise BackupError(f"what was restored is not well: {found}; before it there was {kept}")
    migrated = Database(database_url)
    try:
        migrated.migrate()
    finally:
        migrated.close()
    return manifest, kept


def _keep(database: Kept, folder: Path) -> Path | None:
    """A backup of what is about to be replaced; of a damaged database, its file as it is."""
    if database.is_empty():
        return None
    path = new_name(folder, "before-restore")
    try:
        _back_up(database, path)
    except Damaged as error:
        aside = database.copy_aside(path.with_suffix(".damaged"))
        if aside is None:
            raise BackupError(f"what is there now cannot be kept: {error}") from error
        return aside
    return path


@contextmanager
def _unpacked(source: Path) -> Iterator[tuple[Manifest, Path]]:
    """The manifest and the database of a backup, once both are seen to be whole."""
    with tempfile.TemporaryDirectory(prefix="cbam-restore-") as folder:
        copy = Path(folder) / "database"
        try:
            with zipfile.ZipFile(source) as archive:
                fields: dict[str, Any] = json.loads(archive.read("manifest.json"))
                with archive.open("database") as packed, copy.open("wb") as unpacked:
                    shutil.copyfileobj(packed, unpacked, BLOCK_BYTES)
            if fields.get("format") != FORMAT:
                raise BackupError(f"{source} is of another format than {FORMAT}")
            manifest = Manifest(**fields)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise BackupError(f"{source} is not a backup that can be read: {error}") from error
        if _sha256(copy) != manifest.sha256:
            raise BackupError(f"{source} is damaged: the database in it is not the one that was backed up")
        if manifest.problems:
            raise BackupError(f"{source} was made of a database with problems: {'; '.join(manifest.problems)}")
        if manifest.revision not in known_revisions():
            raise BackupError(f"{source} has schema {manifest.revision}, of a newer cbam-lab than this one")
        yield manifest, copy


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
