"""Prune: have checkpoints, or all files, of ended experiments removed, whose rows stay."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cbam_core.errors import CbamError
from service.database.models.experiments import Experiment
from service.domain.filters import Cursor, Filter, Sort
from service.domain.pruning import PruneScope
from service.domain.roles import Caller, require_change
from service.errors import ExperimentNotFound
from service.experiments.bulk import of_caller
from service.experiments.store import ExperimentStore


@dataclass(frozen=True)
class Pruned:
    """What came of one experiment: the bytes that go, or what stood against it. No row: there is none."""

    id: str
    row: Experiment | None = None
    bytes: int = 0
    error: CbamError | None = None


def chosen(
    store: ExperimentStore, where: Filter, scope: PruneScope, *, caller: Caller, limit: int, after: Cursor | None
) -> tuple[list[str], Cursor | None]:
    """The ids of what can be pruned among the experiments that pass the filter, the longest ended first.

    Returns them with the place of the next ones. Raises InvalidField where the filter would let everything pass.
    """
    narrowed = of_caller(where, caller)
    if narrowed is None:
        return [], None
    rows, place = store.page(replace(narrowed, prunable=scope), sort=Sort.ENDED, limit=limit, after=after, specs=False)
    return [row.id for row in rows], place


def apply(
    store: ExperimentStore, scope: PruneScope, ids: Sequence[str], *, caller: Caller, dry_run: bool
) -> list[Pruned]:
    """Prune each of them in its own short transaction, or only say what would go; what one raises stops no other."""
    return [_prune(store, scope, one, caller=caller, dry_run=dry_run) for one in dict.fromkeys(ids)]


def _prune(store: ExperimentStore, scope: PruneScope, experiment_id: str, *, caller: Caller, dry_run: bool) -> Pruned:
    row = None
    try:
        row = store.get(experiment_id)
        require_change(caller, row.owner)
        row, size = store.prune(experiment_id, scope, by=caller.name, dry_run=dry_run)
    except CbamError as error:
        return Pruned(experiment_id, row=None if isinstance(error, ExperimentNotFound) else row, error=error)
    return Pruned(experiment_id, row=row, bytes=size)
