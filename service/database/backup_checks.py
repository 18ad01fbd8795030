"""Whether a database is one that the service can go on with: asked of every backup, and of what was restored."""

from collections.abc import Iterator

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, and_, func, inspect, select, text

from service.database.engine import migrations_config
from service.database.models.base import Base
from service.database.models.experiments import Attempt, Event, Experiment
from service.domain.states import HOLDS_GANG, MOVES, State

REVISIONS = "alembic_version"
MOST_NAMED = 5  # of the experiments that a problem is about


def revision_of(connection: Connection) -> str | None:
    """The version of the schema, or None where the database has none of ours."""
    if not inspect(connection).has_table(REVISIONS):
        return None
    version: str | None = connection.scalar(text(f"SELECT version_num FROM {REVISIONS}"))
    return version


def known_revisions() -> list[str]:
    """Every version of the schema that this program can bring to the newest."""
    return [script.revision for script in ScriptDirectory.from_config(migrations_config()).walk_revisions()]


def tables_of(connection: Connection) -> list[str]:
    """Those of the service's tables that are there: a database of an older version has fewer."""
    there = set(inspect(connection).get_table_names())
    return sorted(there & {REVISIONS, *Base.metadata.tables})


def rows_of(connection: Connection) -> dict[str, int]:
    """How many rows each table holds."""
    return {name: connection.scalar(text(f"SELECT count(*) FROM {name}")) or 0 for name in tables_of(connection)}


def problems_of(connection: Connection) -> list[str]:
    """What is wrong with the database, in words; empty where all is well."""
    revision = revision_of(connection)
    if revision is None:
        return ["it holds no tables of cbam-lab"]
    if revision not in known_revisions():
        return [f"its schema {revision} is of a newer cbam-lab than this one"]
    return [*_damage(connection), *_states(connection), *_attempts(connection), *_history(connection)]


def _damage(connection: Connection) -> Iterator[str]:
    """What the database itself has to say. PostgreSQL checks keys at every write, SQLite where it is asked to."""
    if connection.dialect.name != "sqlite":
        return
    for (line,) in connection.execute(text("PRAGMA integrity_check(10)")):
        if line != "ok":
            yield f"it is damaged: {line}"
    for table, row, parent, _ in connection.execute(text("PRAGMA foreign_key_check")):
        yield f"row {row} of {table} refers to a row of {parent} that is not there"


def _states(connection: Connection) -> Iterator[str]:
    known = [str(state) for state in State]
    lost = connection.scalars(select(Experiment.id).where(Experiment.state.not_in(known)))
    yield from _named("in a state that does not exist", list(lost))


def _attempts(connection: Connection) -> Iterator[str]:
    """What has a gang has an attempt that has not ended."""
    current = and_(Attempt.experiment_id == Experiment.id, Attempt.number == Experiment.attempt)
    query = (
        select(Experiment.id)
        .outerjoin(Attempt, and_(current, Attempt.ended_at.is_(None)))
        .where(Experiment.state.in_(HOLDS_GANG), Attempt.number.is_(None))
    )
    yield from _named("at work without an attempt", list(connection.scalars(query)))


def _history(connection: Connection) -> Iterator[str]:
    """Every move is a legal one, and the last one led to where the experiment is."""
    legal = {(str(source), str(to)) for source, targets in MOVES.items() for to in targets}
    moves = connection.execute(select(Event.from_state, Event.to_state).distinct())
    for source, to in moves:
        if source is not None and (source, to) not in legal:
            yield f"an event moves from {source} to {to}, which is not legal"
    newest = select(func.max(Event.seq).label("seq")).group_by(Event.experiment_id).subquery()
    last = select(Event.experiment_id, Event.to_state).join(newest, newest.c.seq == Event.seq).subquery()
    query = (
        select(Experiment.id)
        .outerjoin(last, last.c.experiment_id == Experiment.id)
        .where((last.c.to_state != Experiment.state) | last.c.to_state.is_(None))
    )
    yield from _named("not where their last event left them", list(connection.scalars(query)))


def _named(what: str, ids: list[str]) -> Iterator[str]:
    if ids:
        more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
        yield f"{len(ids)} experiments are {what}: {', '.join(ids[:MOST_NAMED])}{more}"
