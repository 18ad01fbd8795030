"""The SQL of a list: filter, order and place as a query, and the labels that it filters by."""

from typing import Any

from sqlalchemy import ColumnElement, Select, exists, or_, select, tuple_
from sqlalchemy.orm import aliased

from service.database.models.experiments import Experiment, Label
from service.domain.filters import FACET_MARK, NOT_ALWAYS, Cursor, Filter, Sort, facets_of
from service.domain.pruning import PruneScope
from service.domain.states import TERMINAL


def page_query(where: Filter, sort: Sort, after: Cursor | None) -> Select[Experiment]:
    """The experiments that pass the filter, in their order, behind a place. What lacks the sorted value is left out."""
    query = select(Experiment)
    created: Any = Experiment.created_at
    row_id: Any = Experiment.id
    labels = [*where.tags, *((f"{FACET_MARK}{name}", value) for name, value in where.facets.items())]
    if labels:
        first = aliased(Label)
        query = query.join(first, first.experiment_id == Experiment.id).where(*_matches(first, labels[0]))
        created, row_id = first.created_at, first.experiment_id  # its index has the newest of a label side by side
    for label in labels[1:]:
        other = aliased(Label)
        query = query.where(exists().where(other.experiment_id == Experiment.id, *_matches(other, label)))
    query = query.where(*_conditions(where, created))
    column: Any = getattr(Experiment, sort.column)
    if sort.column in NOT_ALWAYS:
        query = query.where(column.is_not(None))
    by_age = sort.column == "created_at"
    keys = [created, row_id] if by_age else [column, Experiment.created_at, Experiment.id]
    if after is not None:
        values = [after.created_at, after.id]
        here, there = tuple_(*keys), tuple_(*(values if by_age else [after.value, *values]))
        query = query.where(here < there if sort.falls else here > there)
    return query.order_by(*(key.desc() if sort.falls else key.asc() for key in keys))


def _matches(label: Any, wanted: tuple[str, str | None]) -> list[ColumnElement[bool]]:
    key, value = wanted
    return [label.key == key] if value is None else [label.key == key, label.value == value]


def _conditions(where: Filter, created: Any) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if where.ids:
        found.append(Experiment.id.in_(where.ids))
    if where.states:
        found.append(Experiment.state.in_(where.states))
    if where.project is not None:
        found.append(Experiment.project == where.project)
    if where.owner is not None:
        found.append(Experiment.owner == where.owner)
    if where.study is not None:
        found.append(Experiment.study_id == where.study)
    if where.name_contains:
        found.append(Experiment.name.icontains(where.name_contains, autoescape=True))
    if where.created_after is not None:
        found.append(created >= where.created_after)
    if where.created_before is not None:
        found.append(created < where.created_before)
    if where.ended_before is not None:
        found.append(Experiment.ended_at < where.ended_before)
    if where.prunable is not None:
        found += _has_files(where.prunable)
    return found


def _has_files(scope: PruneScope) -> list[ColumnElement[bool]]:
    """Ended, and not known to have nothing that would go."""
    everything = scope is PruneScope.ALL
    pruned, size = Experiment.pruned, Experiment.disk_bytes if everything else Experiment.checkpoint_bytes
    return [
        Experiment.state.in_(TERMINAL),
        or_(pruned.is_(None), pruned != PruneScope.ALL) if everything else pruned.is_(None),
        or_(size > 0, Experiment.disk_measured_at.is_(None)),
    ]


def cursor_of(row: Experiment, sort: Sort) -> Cursor:
    """Where a row stands in a list."""
    return Cursor(sort, getattr(row, sort.column), row.created_at, row.id)


def labels_of(row: Experiment) -> list[Label]:
    """What an experiment is found by: its tags, and what its spec names."""
    values = dict(row.tags) | {f"{FACET_MARK}{name}": value for name, value in facets_of(row.spec).items()}
    return [
        Label(experiment_id=row.id, key=key, value=value, created_at=row.created_at) for key, value in values.items()
    ]
