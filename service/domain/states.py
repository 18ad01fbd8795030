"""The life of an experiment: its states, its legal moves, and the pure decision which move comes next.

State says where an experiment is, reason says why it left where it was. The table `MOVES` is also a constraint in the
database (`legal_moves`), so no code can make a move that is not in it.
"""

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where an experiment is."""

    QUEUED = "QUEUED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Reason(StrEnum):
    """Why an attempt, or the experiment, ended as it did."""

    USER_ERROR = "USER_ERROR"
    CUDA_OOM = "CUDA_OOM"
    LOSS_NOT_FINITE = "LOSS_NOT_FINITE"
    DATA_ERROR = "DATA_ERROR"
    CHECKPOINT_ERROR = "CHECKPOINT_ERROR"
    WORKER_DIED = "WORKER_DIED"
    NODE_LOST = "NODE_LOST"
    CLUSTER_LOST = "CLUSTER_LOST"
    PREEMPTED = "PREEMPTED"
    START_TIMEOUT = "START_TIMEOUT"
    HANG_DETECTED = "HANG_DETECTED"
    UNSCHEDULABLE = "UNSCHEDULABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    CANCELLED_BY_USER = "CANCELLED_BY_USER"


class Desired(StrEnum):
    """What is wanted; the API writes it for the user, the dispatcher makes it so."""

    RUN = "run"
    PAUSE = "pause"
    CANCEL = "cancel"
    YIELD = "yield"  # the dispatcher's own wish: make room for a higher priority, then wait again


class Retry(StrEnum):
    """Who pays for another attempt."""

    FREE = "free"  # a fault of the cluster: retried with back-off, up to a generous cap
    CHARGED = "charged"  # the experiment's own fault: retried up to its max_restarts
    NEVER = "never"


class Liveness(StrEnum):
    """What the cluster says of a gang. Nothing is concluded from UNKNOWN.

    Only a wish, a deadline, or the limit to a start ends a gang that does not answer.
    """

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


S = State
TERMINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})
HOLDS_GANG = frozenset({S.STARTING, S.RUNNING, S.PAUSING, S.CANCELLING})
MOVES: dict[State, frozenset[State]] = {
    S.QUEUED: frozenset({S.STARTING, S.PAUSED, S.CANCELLED, S.FAILED}),
    S.STARTING: frozenset({S.RUNNING, S.QUEUED, S.CANCELLING, S.FAILED}),
    S.RUNNING: frozenset({S.QUEUED, S.PAUSING, S.CANCELLING, S.SUCCEEDED, S.FAILED}),
    S.PAUSING: frozenset({S.PAUSED, S.CANCELLING, S.SUCCEEDED, S.FAILED}),
    S.PAUSED: frozenset({S.QUEUED, S.CANCELLED}),
    S.CANCELLING: frozenset({S.CANCELLED, S.SUCCEEDED, S.FAILED}),
    S.SUCCEEDED: frozenset(),
    S.FAILED: frozenset({S.QUEUED}),  # by retry alone
    S.CANCELLED: frozenset({S.QUEUED}),
}
POLICY: dict[Reason, Retry] = {
    Reason.USER_ERROR: Retry.CHARGED,
    Reason.CUDA_OOM: Retry.CHARGED,
    Reason.LOSS_NOT_FINITE: Retry.CHARGED,
    Reason.DATA_ERROR: Retry.CHARGED,
    Reason.CHECKPOINT_ERROR: Retry.CHARGED,
    Reason.WORKER_DIED: Retry.FREE,
    Reason.NODE_LOST: Retry.FREE,
    Reason.CLUSTER_LOST: Retry.FREE,
    Reason.PREEMPTED: Retry.FREE,
    Reason.START_TIMEOUT: Retry.FREE,
    Reason.HANG_DETECTED: Retry.FREE,
    Reason.UNSCHEDULABLE: Retry.NEVER,
    Reason.DEADLINE_EXCEEDED: Retry.NEVER,
    Reason.CANCELLED_BY_USER: Retry.NEVER,
}
MAX_FREE_RETRIES = 20
MAX_BACKOFF_SECONDS = 300.0
ACTIONS: dict[State, tuple[str, ...]] = {
    S.QUEUED: ("cancel", "pause"),
    S.STARTING: ("cancel",),
    S.RUNNING: ("cancel", "pause"),
    S.PAUSING: ("cancel", "resume"),
    S.PAUSED: ("cancel", "resume"),
    S.CANCELLING: (),
    S.SUCCEEDED: ("delete",),
    S.FAILED: ("retry", "delete"),
    S.CANCELLED: ("retry", "delete"),
}
"""What a user may ask for in each state; the answer to anything else names these."""


@dataclass(frozen=True, kw_only=True)
class Situation:
    """All that the next move depends on: the row, and what is seen of its gang."""

    state: State
    desired: Desired = Desired.RUN
    past_deadline: bool = False
    free_retries: int = 0
    charged_retries: int = 0
    max_restarts: int = 0
    progressed: bool = True  # the last attempt came further than the one before it
    placed: bool = True  # the cluster has given the attempt the place that it was promised
    stepped: bool = False  # the attempt has made its first optimizer step
    gang_gone: bool = False  # no process and no reservation of the attempt is left
    outcome: str | None = None  # of the result record: succeeded, failed, cancelled, paused
    reason: Reason | None = None  # of the result record, or what killed the gang
    message: str = ""


@dataclass(frozen=True)
class Move:
    """A change of state, why, and who pays for it."""

    to: State
    reason: Reason | None = None
    message: str = ""
    charge: Retry | None = None


def has_diverged(state: State | None, reason: Reason | None) -> bool:
    """Whether it ended because its loss was no longer finite: that is a result, and no fault of anybody's."""
    return state is State.FAILED and reason is Reason.LOSS_NOT_FINITE


def is_legal(source: State, to: State) -> bool:
    """Whether the table allows the move."""
    return to in MOVES[source]


def decide(now: Situation) -> Move | None:
    """The next move of an experiment, or None where it stays where it is. Pure and total."""
    if now.state in TERMINAL:
        return None
    if now.state in HOLDS_GANG:
        return _ended(now) or _going_on(now)
    return _waiting(now)


def _waiting(now: Situation) -> Move | None:
    """QUEUED and PAUSED: there is no gang, so the wish is the deed. To start one is `admission`'s to decide."""
    if now.desired is Desired.CANCEL:
        return Move(S.CANCELLED, Reason.CANCELLED_BY_USER)
    if now.state is S.QUEUED and now.desired is Desired.PAUSE:
        return Move(S.PAUSED)
    if now.state is S.QUEUED and now.past_deadline:
        return Move(S.FAILED, Reason.DEADLINE_EXCEEDED)
    if now.state is S.PAUSED and now.desired is Desired.RUN:
        return Move(S.QUEUED)
    return None


def _ended(now: Situation) -> Move | None:
    """The attempt is over: its record says it succeeded, or nothing of its gang is left."""
    if now.outcome == "succeeded":
        # A gang that ended before its first step was seen has still run: STARTING goes by way of RUNNING.
        return Move(S.RUNNING if now.state is S.STARTING else S.SUCCEEDED)
    if not now.gang_gone:
        return None
    own_fault = now.outcome == "failed" and now.reason is not None and POLICY[now.reason] is not Retry.FREE
    if now.state is S.CANCELLING and not own_fault:
        return _cancelled(now)
    if now.state is S.PAUSING and not own_fault:
        return Move(S.PAUSED)
    if now.desired is Desired.YIELD and not own_fault:
        return Move(S.QUEUED, Reason.PREEMPTED, now.message)
    return _failed(now)


def _cancelled(now: Situation) -> Move:
    if now.desired is not Desired.CANCEL and now.past_deadline:
        return Move(S.FAILED, Reason.DEADLINE_EXCEEDED, now.message)
    return Move(S.CANCELLED, Reason.CANCELLED_BY_USER)


def backoff(retries: int, *, first_seconds: float) -> float:
    """Seconds before the attempt that is retry number `retries`: twice as long each time, five minutes at most."""
    return min(MAX_BACKOFF_SECONDS, first_seconds * 2.0 ** (retries - 1))


def _failed(now: Situation) -> Move:
    """Another attempt where the policy grants one, else the end."""
    reason = now.reason or Reason.WORKER_DIED
    if now.past_deadline:
        return Move(S.FAILED, Reason.DEADLINE_EXCEEDED, now.message)
    if reason is Reason.START_TIMEOUT and not now.placed:
        return Move(S.QUEUED, reason, now.message)  # it has only waited for room: that is nobody's fault
    policy = POLICY[reason]
    may_retry = {
        Retry.FREE: now.free_retries < MAX_FREE_RETRIES,
        Retry.CHARGED: now.charged_retries < now.max_restarts and now.progressed,
        Retry.NEVER: False,
    }[policy]
    if may_retry and now.state in (S.STARTING, S.RUNNING):
        return Move(S.QUEUED, reason, now.message, charge=policy)
    return Move(S.FAILED, reason, now.message)


def _going_on(now: Situation) -> Move | None:
    """The attempt is alive, or not known to be dead."""
    if now.state is S.CANCELLING:
        return None
    if now.desired is Desired.CANCEL:
        return Move(S.CANCELLING)
    if now.past_deadline:
        return Move(S.CANCELLING, Reason.DEADLINE_EXCEEDED)
    if now.state is S.STARTING and now.stepped:
        return Move(S.RUNNING)
    if now.state is S.RUNNING and now.desired is Desired.PAUSE:
        return Move(S.PAUSING)
    return None
