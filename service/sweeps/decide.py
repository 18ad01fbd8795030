"""What a sweep does next, decided from its rows alone. Pure: killed at any moment, it decides the same again.

What ended is taken in one by one, in the order in which it ended, and what that gives room for begins before the next
is taken in. Proposal k is informed by the first k + 1 − `concurrent` trials in that order. So all that is decided, and
its order, depend on the order in which trials ended, and not on when somebody looked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from service.domain.states import TERMINAL, Desired, Reason, State
from service.domain.studies import (
    BeginTrials,
    EndTrials,
    ReopenTrials,
    RetryTrials,
    Step,
    StudyMove,
    StudyReason,
    StudyState,
    TrialEnd,
    TrialOutcome,
)
from service.studies.life import commonest, steps_of_wishes, wish

GIVEN_UP = frozenset({TrialOutcome.CANCELLED, TrialOutcome.DELETED})
"""Says nothing of the values that were tried."""


@dataclass(frozen=True, kw_only=True)
class TrialSeen:
    """One trial, and where its experiment is: `state` is None where that was deleted, or never was.

    `outcome` and `place` are what was written down of its end; `metric` is what its experiment reports, None where it
    reports nothing.
    """

    number: int
    state: State | None
    desired: Desired = Desired.RUN
    reason: Reason | None = None
    message: str = ""
    metric: float | None = None
    ended_at: float = 0.0
    outcome: str | None = None
    place: int | None = None
    value: float | None = None
    why: str = ""

    @property
    def waits_for_retry(self) -> bool:
        """Whether it is to be queued once more."""
        return self.outcome == TrialOutcome.RETRY

    @property
    def is_open(self) -> bool:
        """Whether it takes one of the places for trials at a time."""
        return self.place is None and not self.waits_for_retry

    @property
    def is_broken(self) -> bool:
        """Whether it failed. One that diverged has not: it only ranks last."""
        return self.place is not None and self.outcome not in (*GIVEN_UP, TrialOutcome.OK, Reason.LOSS_NOT_FINITE)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a sweep goes, as it is now."""

    trials: int
    concurrent: int
    failed: int
    hours: float | None = None


@dataclass(frozen=True, kw_only=True)
class SweepSeen:
    """All that the next steps of a sweep depend on; `is_over` says that its hours are."""

    state: StudyState
    desired: Desired
    reason: StudyReason | None
    message: str
    limits: Limits
    is_over: bool
    trials: Sequence[TrialSeen]

    @property
    def own(self) -> Sequence[TrialSeen]:
        """All of them."""
        return self.trials


@dataclass(frozen=True)
class Wanted:
    """A proposal that is to be made: its number, and the trials that inform it, in the order in which they ended."""

    number: int
    informed_by: tuple[int, ...]


@dataclass(frozen=True)
class Decided:
    """The next steps; proposals that are to be made and trained, and trials that are to be queued once more."""

    steps: Sequence[Step] = ()
    proposals: Sequence[Wanted] = ()
    retries: Sequence[int] = ()  # numbers of trials

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.steps or self.proposals or self.retries)


def decide(now: SweepSeen) -> Decided:
    """What to do next; nothing where the sweep waits. What follows from that, `advance` and another call say."""
    again = tuple(
        one.number
        for one in now.trials
        if one.place is not None and one.state is not None and one.state not in TERMINAL
    )
    if again:
        return Decided([ReopenTrials(again)])
    wanted = steps_of_wishes(now)
    decided = _active(now) if wanted is None else Decided()
    if not decided.is_nothing:
        return decided
    if (end := _first_end(now)) is not None:
        return Decided([EndTrials((end,))])
    return Decided(wanted or [])


def advance(now: SweepSeen, steps: Sequence[Step]) -> SweepSeen:
    """The sweep as it is once these steps are made, as far as they are about its trials."""
    trials = {one.number: one for one in now.trials}
    for step in steps:
        match step:
            case EndTrials(ends):
                for end in ends:
                    trials[end.number] = replace(
                        trials[end.number], outcome=end.outcome, place=end.place, value=end.value, why=end.message
                    )
            case ReopenTrials(numbers):
                for number in numbers:
                    trials[number] = replace(trials[number], outcome=None, place=None, value=None)
            case BeginTrials(begun):
                for trial in begun:
                    refused = None if trial.refused is None else TrialOutcome.SPEC_INVALID
                    state = State.QUEUED if refused is None else None
                    trials[trial.block] = TrialSeen(
                        number=trial.block, state=state, outcome=refused, why=trial.refused or ""
                    )
            case RetryTrials(retried):
                for number, _ in retried:
                    trials[number] = TrialSeen(number=number, state=State.QUEUED)
    return replace(now, trials=list(trials.values()))


def _first_end(now: SweepSeen) -> TrialEnd | None:
    """The end of the trial that ended first of those whose end is not written down."""
    new = [one for one in now.trials if one.is_open and (one.state is None or one.state in TERMINAL)]
    if not new:
        return None
    place = 1 + max((one.place for one in now.trials if one.place is not None), default=-1)
    return _end(min(new, key=lambda one: (one.ended_at, one.number)), place)


def _end(trial: TrialSeen, place: int) -> TrialEnd:
    if trial.outcome is not None:  # its spec was refused when it was proposed
        return TrialEnd(trial.number, trial.outcome, place, message=trial.why)
    match trial.state:
        case None:
            outcome, message = str(TrialOutcome.DELETED), "its experiment was deleted"
        case State.CANCELLED:
            outcome, message = TrialOutcome.CANCELLED, trial.message
        case State.FAILED:
            outcome, message = trial.reason or State.FAILED, trial.message
        case _ if trial.metric is None:
            outcome, message = TrialOutcome.NO_METRIC, "it reported no value of the metric"
        case _ if not math.isfinite(trial.metric):
            outcome, message = Reason.LOSS_NOT_FINITE, "the value of its metric is not finite"
        case _:
            return TrialEnd(trial.number, TrialOutcome.OK, place, trial.metric)
    return TrialEnd(trial.number, str(outcome), place, message=message)


def _active(now: SweepSeen) -> Decided:
    if (failure := _failing(now)) is not None:
        return Decided([failure])
    still_open = sum(one.is_open for one in now.trials)
    if now.is_over:
        if still_open:
            return Decided(wish(now, Desired.CANCEL))
        return Decided([_done(now, f"its {now.limits.hours:g} hours are over, after {len(now.trials)} trials")])
    room = max(0, now.limits.concurrent - still_open)
    retries = [one.number for one in now.trials if one.waits_for_retry]
    if retries:
        return Decided(retries=retries[:room])
    begun = len(now.trials)
    wanted = range(begun, min(now.limits.trials, begun + room))
    if wanted:
        order = sorted((one for one in now.trials if one.place is not None), key=lambda one: one.place or 0)
        numbers = tuple(one.number for one in order)
        informed = [numbers[: max(0, number + 1 - now.limits.concurrent)] for number in wanted]
        return Decided(proposals=[Wanted(number, known) for number, known in zip(wanted, informed, strict=True)])
    return Decided() if still_open else Decided([_done(now)])


def _failing(now: SweepSeen) -> StudyMove | None:
    """Where the trials that ended last all failed: whatever is wrong would fail the others too."""
    ended = [one for one in now.trials if one.place is not None and one.outcome not in GIVEN_UP]
    latest = sorted(ended, key=lambda one: -(one.place or 0))
    failed = list(takewhile(lambda one: one.is_broken, latest))
    if len(failed) < now.limits.failed:
        return None
    told = commonest((str(one.outcome), one.why or one.message) for one in failed)
    message = f"{len(failed)} trials failed one after the other, most often with {told}"
    return StudyMove(StudyState.STOPPING, StudyReason.EXPERIMENTS_FAILED, message)


def _done(now: SweepSeen, message: str = "") -> StudyMove:
    """The end; with a result only where a trial has a value."""
    if any(one.outcome == TrialOutcome.OK for one in now.trials):
        return StudyMove(StudyState.SUCCEEDED, message=message)
    failed = [one for one in now.trials if one.outcome not in (*GIVEN_UP, None)]
    if not failed:
        return StudyMove(StudyState.SUCCEEDED, message=message or "no trial has a value: all were cancelled or deleted")
    told = commonest((str(one.outcome), one.why or one.message) for one in failed)
    words = f"none of {len(now.trials)} trials has a value; most often {told}"
    return StudyMove(StudyState.STOPPING, StudyReason.EXPERIMENTS_FAILED, words)
