"""The life of a study: a comparison or a sweep, which is many experiments and a decision about them.

As for experiments, the table of moves is a constraint in the database too (`legal_study_moves`).
"""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

from service.domain.states import Desired


class StudyKind(StrEnum):
    """What a study is for."""

    COMPARISON = "comparison"
    SWEEP = "sweep"


class StudyState(StrEnum):
    """Where a study is."""

    ACTIVE = "ACTIVE"
    PAUSING = "PAUSING"
    PAUSED = "PAUSED"
    STOPPING = "STOPPING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class StudyReason(StrEnum):
    """Why a study ended as it did."""

    CANCELLED_BY_USER = "CANCELLED_BY_USER"
    EXPERIMENTS_FAILED = "EXPERIMENTS_FAILED"
    PROPOSALS_FAILED = "PROPOSALS_FAILED"
    SPEC_UNREADABLE = "SPEC_UNREADABLE"


S = StudyState
STUDY_TERMINAL = frozenset({S.SUCCEEDED, S.FAILED, S.CANCELLED})
STUDY_MOVES: dict[StudyState, frozenset[StudyState]] = {
    S.ACTIVE: frozenset({S.PAUSING, S.STOPPING, S.SUCCEEDED}),
    S.PAUSING: frozenset({S.ACTIVE, S.PAUSED, S.STOPPING, S.SUCCEEDED}),
    S.PAUSED: frozenset({S.ACTIVE, S.STOPPING}),
    S.STOPPING: frozenset({S.CANCELLED, S.FAILED}),
    S.SUCCEEDED: frozenset({S.ACTIVE}),  # with more seeds, or by a retry of experiments that failed
    S.FAILED: frozenset({S.ACTIVE}),
    S.CANCELLED: frozenset({S.ACTIVE}),
}
STUDY_ACTIONS: dict[StudyState, tuple[str, ...]] = {
    S.ACTIVE: ("cancel", "pause", "add-seeds"),
    S.PAUSING: ("cancel", "resume", "add-seeds"),
    S.PAUSED: ("cancel", "resume", "add-seeds"),
    S.STOPPING: (),
    S.SUCCEEDED: ("retry", "add-seeds", "delete"),
    S.FAILED: ("retry", "delete"),
    S.CANCELLED: ("retry", "delete"),
}
"""What a user may ask of a comparison in each state; the answer to anything else names these."""
EXTENDED_BY = {StudyKind.COMPARISON: "add-seeds", StudyKind.SWEEP: "extend"}
"""How each kind is asked for more experiments."""
STUDY_WISHES = {"cancel": Desired.CANCEL, "pause": Desired.PAUSE, "resume": Desired.RUN}


def study_actions(kind: StudyKind, state: StudyState) -> tuple[str, ...]:
    """What a user may ask of a study of this kind in this state."""
    extend = EXTENDED_BY[StudyKind.COMPARISON]
    return tuple(EXTENDED_BY[kind] if action == extend else action for action in STUDY_ACTIONS[state])


def is_legal_study_move(source: StudyState, to: StudyState) -> bool:
    """Whether the table allows the move."""
    return to in STUDY_MOVES[source]


PROBE_BLOCK = -1
"""The block of trials that train nothing: each is the probe of what its variant costs."""


@dataclass(frozen=True)
class PlannedTrial:
    """An experiment that a study wants: the seed of its block, and which of its variants.

    With `against`, it is the probe of what its variant costs against that one.

    Of a sweep: the number of its proposal, `train.seed`, the method; the proposed values as JSON with sorted keys, the
    numbers of the trials that the proposal is informed by, and why its spec is refused, None where it is valid.
    """

    block: int
    seed: int
    variant: str
    against: str | None = None
    params: str | None = None
    informed_by: tuple[int, ...] = ()
    refused: str | None = None

    @property
    def control(self) -> "PlannedTrial | None":
        """What a probe is measured against, as a trial of its own; None for a training."""
        return None if self.against is None else PlannedTrial(self.block, self.seed, self.against)


def name_of(variant: str, block: int) -> str:
    """A trial in words; seeds are counted from 1."""
    return f"cost of {variant}" if block == PROBE_BLOCK else f"{variant}, seed {block + 1}"


@dataclass(frozen=True)
class BeginTrials:
    """Store these as trials, and submit their experiments in this order."""

    trials: tuple[PlannedTrial, ...]


@dataclass(frozen=True)
class PlanSeeds:
    """So many seeds are wanted from now on, and why."""

    seeds: int
    message: str


@dataclass(frozen=True)
class WishFor:
    """What is wanted of the experiments of these trials."""

    numbers: tuple[int, ...]
    desired: Desired


@dataclass(frozen=True)
class TrialEnd:
    """What a trial of a sweep ended with: an outcome (`TrialOutcome` or the reason of a failure), a value if any.

    `place` is its number in the order in which trials ended, from 0.
    """

    number: int
    outcome: str
    place: int
    value: float | None = None
    message: str = ""


@dataclass(frozen=True)
class EndTrials:
    """Write down what these trials ended with."""

    ends: tuple[TrialEnd, ...]


@dataclass(frozen=True)
class ReopenTrials:
    """These have been retried one by one: what they had ended with holds no longer."""

    numbers: tuple[int, ...]


@dataclass(frozen=True)
class RetryTrials:
    """Queue the experiments of these trials once more, or, of those that were deleted, new ones."""

    trials: tuple[tuple[int, PlannedTrial], ...]


@dataclass(frozen=True)
class StudyMove:
    """A change of the study's own state, and why."""

    to: StudyState
    reason: StudyReason | None = None
    message: str = ""


Step = BeginTrials | EndTrials | PlanSeeds | ReopenTrials | RetryTrials | WishFor | StudyMove


class TrialOutcome(StrEnum):
    """What a trial of a sweep ended with, beside the reasons for which experiments fail."""

    OK = "OK"
    CANCELLED = "CANCELLED"
    DELETED = "DELETED"
    NO_METRIC = "NO_METRIC"
    SPEC_INVALID = "SPEC_INVALID"
    RETRY = "RETRY"  # it is to be queued once more, as soon as there is room for it


def seed_of(study_seed: int, block: int) -> int:
    """The seed of a block, fixed beforehand: the first 31 bits of the SHA-256 of "study_seed:block"."""
    digest = hashlib.sha256(f"{study_seed}:{block}".encode()).digest()
    return int.from_bytes(digest[:4]) >> 1
