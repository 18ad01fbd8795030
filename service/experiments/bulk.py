"""One wish for many experiments: each is asked on its own, and says on its own what came of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cbam_core.errors import CbamError
from service.database.models.experiments import Experiment
from service.domain.filters import Filter
from service.domain.roles import Caller, Role, require_change
from service.errors import InvalidField
from service.experiments import actions
from service.experiments.store import ExperimentStore

Action = Literal["cancel", "delete"]


@dataclass(frozen=True)
class Result:
    """What came of one experiment: where it is now (None once it is deleted), or what stood against it."""

    id: str
    row: Experiment | None = None
    error: CbamError | None = None


def chosen(store: ExperimentStore, where: Filter, *, caller: Caller, limit: int) -> tuple[list[str], bool]:
    """The ids of the experiments that pass the filter and that the caller may change, and whether there are more.

    Raises InvalidField where the filter would let everything pass: nobody means that.
    """
    narrowed = of_caller(where, caller)
    if narrowed is None:
        return [], False
    rows, place = store.page(narrowed, limit=limit, specs=False)
    return [row.id for row in rows], place is not None


def of_caller(where: Filter, caller: Caller) -> Filter | None:
    """The filter without what the caller may not change; None where nothing is left.

    Raises InvalidField where it would let everything pass.
    """
    if where.is_empty:
        raise InvalidField("/filter", "say which; an empty filter would take everything")
    if caller.is_at_least(Role.ADMIN):
        return where
    return replace(where, owner=caller.name) if where.owner in (None, caller.name) else None


def apply(store: ExperimentStore, action: Action, ids: Sequence[str], *, caller: Caller) -> list[Result]:
    """Cancel or delete each of them, in its own short transaction; what one raises stops none of the others."""
    deed: Callable[[str], Experiment | None] = {"cancel": _cancel, "delete": _delete}[action](store, caller)
    results = []
    for experiment_id in dict.fromkeys(ids):
        try:
            results.append(Result(experiment_id, row=deed(experiment_id)))
        except CbamError as error:
            results.append(Result(experiment_id, error=error))
    return results


def _cancel(store: ExperimentStore, caller: Caller) -> Callable[[str], Experiment]:
    return lambda experiment_id: actions.act(store, experiment_id, "cancel", caller=caller)


def _delete(store: ExperimentStore, caller: Caller) -> Callable[[str], None]:
    def deed(experiment_id: str) -> None:
        require_change(caller, store.get(experiment_id).owner)
        store.delete(experiment_id, by=caller.name)

    return deed
