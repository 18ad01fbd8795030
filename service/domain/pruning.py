"""What of an ended experiment's files may go while its row stays, and what it can do afterwards. Pure."""

from enum import StrEnum

from service.domain.states import ACTIONS, TERMINAL, State
from service.errors import IllegalAction, TrackingUnfinished


class PruneScope(StrEnum):
    """What of an experiment's files goes."""

    CHECKPOINTS = "checkpoints"
    """Only what a retry would go on from: logs, metrics, results and exported weights stay."""
    ALL = "all"
    """The whole folder. The row stays, with spec, last metrics, events and attempts, and so does the MLflow run."""

    def covers(self, other: "PruneScope") -> bool:
        """Whether nothing of the other is left once this is gone."""
        return self in (PruneScope.ALL, other)


NEEDS_CHECKPOINTS = frozenset({"retry", "resume"})


def require_prunable(state: State, scope: PruneScope, *, tracked: bool) -> None:
    """Raise IllegalAction while the experiment has not ended (one that is PAUSED has not).

    Raises TrackingUnfinished where MLflow has not heard all of it (`tracked`), and the rest stands in what would go.
    """
    if state not in TERMINAL:
        raise IllegalAction("prune", state, ACTIONS[state])
    if scope is PruneScope.ALL and not tracked:
        raise TrackingUnfinished


def allowed_actions(state: State, *, pruned: bool) -> tuple[str, ...]:
    """What a user may ask for."""
    return tuple(action for action in ACTIONS[state] if not (pruned and action in NEEDS_CHECKPOINTS))
