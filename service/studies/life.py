"""Pause, resume, cancel and giving up: the steps that all kinds of studies take alike. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Protocol

from service.domain.states import HOLDS_GANG, TERMINAL, Desired, State
from service.domain.studies import Step, StudyMove, StudyReason, StudyState, WishFor


class AnyTrial(Protocol):
    """What these steps need to know of a trial; `state` is None where its experiment was deleted."""

    @property
    def number(self) -> int: ...  # noqa: D102
    @property
    def state(self) -> State | None: ...  # noqa: D102
    @property
    def desired(self) -> Desired: ...  # noqa: D102


class AnyStudy(Protocol):
    """What these steps need to know of a study."""

    @property
    def state(self) -> StudyState: ...  # noqa: D102
    @property
    def desired(self) -> Desired: ...  # noqa: D102
    @property
    def reason(self) -> StudyReason | None: ...  # noqa: D102
    @property
    def message(self) -> str: ...  # noqa: D102
    @property
    def own(self) -> Sequence[AnyTrial]:
        """Those trials whose experiments are its own, to pause and to end."""


def steps_of_wishes(now: AnyStudy) -> list[Step] | None:
    """The steps towards what a user wants of it, none where it waits; None where it is active and to go on."""
    if now.state is StudyState.STOPPING:
        return _stopping(now)
    if now.state not in (StudyState.ACTIVE, StudyState.PAUSING, StudyState.PAUSED):
        return []
    if now.desired is Desired.CANCEL:
        return [StudyMove(StudyState.STOPPING, StudyReason.CANCELLED_BY_USER)]
    if now.desired is Desired.PAUSE:
        return _pausing(now)
    if now.state is not StudyState.ACTIVE:
        return [*wish(now, Desired.RUN), StudyMove(StudyState.ACTIVE)]
    return None


def steps_unreadable(now: AnyStudy, why: str) -> list[Step]:
    """The steps of a study whose spec this version cannot read: it can be cancelled, and else it fails."""
    if now.state is StudyState.STOPPING:
        return _stopping(now)
    if now.desired is Desired.CANCEL:
        return [StudyMove(StudyState.STOPPING, StudyReason.CANCELLED_BY_USER)]
    return [StudyMove(StudyState.STOPPING, StudyReason.SPEC_UNREADABLE, why)]


def wish(now: AnyStudy, desired: Desired) -> list[WishFor]:
    """Of those that have not ended, and of which something else was wanted last."""
    numbers = tuple(
        trial.number
        for trial in now.own
        if trial.state is not None and trial.state not in TERMINAL and _may_become(trial.desired, desired)
    )
    return [WishFor(numbers, desired)] if numbers else []


def commonest(failures: Iterable[tuple[str, str]]) -> str:
    """The commonest of these reasons, with the first words that were said of it."""
    told = list(failures)
    (reason, _), *_ = Counter(reason for reason, _ in told).most_common(1)
    return f"{reason}: {next((words for name, words in told if name == reason and words), '')}"


def _pausing(now: AnyStudy) -> list[Step]:
    if now.state is StudyState.PAUSED:
        return []  # an experiment that a user has resumed meanwhile goes on
    if now.state is StudyState.ACTIVE:
        return [*wish(now, Desired.PAUSE), StudyMove(StudyState.PAUSING)]
    at_work = any(trial.state in HOLDS_GANG or trial.state is State.QUEUED for trial in now.own)
    return [*wish(now, Desired.PAUSE)] if at_work else [StudyMove(StudyState.PAUSED)]


def _stopping(now: AnyStudy) -> list[Step]:
    if wishes := wish(now, Desired.CANCEL):
        return [*wishes]
    if any(trial.state is not None and trial.state not in TERMINAL for trial in now.own):
        return []
    cancelled = now.reason is StudyReason.CANCELLED_BY_USER
    return [StudyMove(StudyState.CANCELLED if cancelled else StudyState.FAILED, now.reason, now.message)]


def _may_become(old: Desired, new: Desired) -> bool:
    """A wish to cancel stands; the dispatcher's own wish to make room is as good as one to run."""
    return old is not new and old is not Desired.CANCEL and not (old is Desired.YIELD and new is Desired.RUN)
