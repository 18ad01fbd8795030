"""The next steps of a sweep, over every state and end of its trials: pure."""

import math
from dataclasses import replace

import pytest

from service.domain.states import Desired, Reason, State
from service.domain.studies import (
    EndTrials,
    ReopenTrials,
    Step,
    StudyMove,
    StudyReason,
    StudyState,
    TrialOutcome,
    WishFor,
    is_legal_study_move,
)
from service.sweeps.decide import Decided, Limits, SweepSeen, TrialSeen, Wanted, advance, decide


def seen(*trials: TrialSeen, **changes: object) -> SweepSeen:
    limits = {"trials": 10, "concurrent": 2, "failed": 3} | changes.pop("limits", {})
    fields = {"state": StudyState.ACTIVE, "desired": Desired.RUN, "reason": None, "message": "", "is_over": False}
    return SweepSeen(**(fields | changes), limits=Limits(**limits), trials=trials)


def running(number: int, **changes: object) -> TrialSeen:
    return TrialSeen(number=number, state=State.RUNNING, **changes)


def ended(number: int, outcome: str = TrialOutcome.OK, *, place: int | None = None, **changes: object) -> TrialSeen:
    """One whose end was written down."""
    state = {TrialOutcome.OK: State.SUCCEEDED, TrialOutcome.CANCELLED: State.CANCELLED, TrialOutcome.DELETED: None}
    value = 0.5 if outcome == TrialOutcome.OK else None
    fields = {"state": state.get(outcome, State.FAILED), "outcome": outcome, "value": value}
    return TrialSeen(number=number, place=number if place is None else place, **(fields | changes))


def settled(now: SweepSeen) -> tuple[list[Step], Decided]:
    """The steps about ends that come first, and what is decided then."""
    steps: list[Step] = []
    while (decided := decide(now)).steps and isinstance(decided.steps[0], EndTrials | ReopenTrials):
        steps += decided.steps
        now = advance(now, decided.steps)
    return steps, decided


def test_it_begins_as_many_as_may_train_at_a_time():
    assert [one.number for one in decide(seen()).proposals] == [0, 1]
    assert decide(seen(running(0), running(1))).proposals == ()
    assert [one.number for one in decide(seen(running(0), ended(1))).proposals] == [2]


def test_it_begins_no_more_than_it_was_asked_for():
    """Others began more when several workers asked at once (optuna#3518, wandb#8549)."""
    nearly = [ended(number) for number in range(9)]
    assert [one.number for one in decide(seen(*nearly)).proposals] == [9]
    assert decide(seen(*nearly, running(9))).proposals == ()


@pytest.mark.parametrize("state", [State.QUEUED, State.STARTING, State.RUNNING, State.PAUSING, State.PAUSED])
def test_whatever_has_not_ended_takes_a_place(state):
    trials = [TrialSeen(number=0, state=state), TrialSeen(number=1, state=state)]
    assert decide(seen(*trials)) == decide(seen(running(0), running(1)))


@pytest.mark.parametrize(
    ("trial", "outcome", "value"),
    [
        ({"state": State.SUCCEEDED, "metric": 0.7}, "OK", 0.7),
        ({"state": State.SUCCEEDED, "metric": None}, "NO_METRIC", None),
        ({"state": State.SUCCEEDED, "metric": math.nan}, "LOSS_NOT_FINITE", None),
        ({"state": State.SUCCEEDED, "metric": math.inf}, "LOSS_NOT_FINITE", None),
        ({"state": State.FAILED, "reason": Reason.LOSS_NOT_FINITE}, "LOSS_NOT_FINITE", None),
        ({"state": State.FAILED, "reason": Reason.CUDA_OOM}, "CUDA_OOM", None),
        ({"state": State.CANCELLED, "reason": Reason.CANCELLED_BY_USER}, "CANCELLED", None),
        ({"state": None}, "DELETED", None),
        ({"state": None, "outcome": "SPEC_INVALID"}, "SPEC_INVALID", None),
    ],
)
def test_every_end_is_written_down_and_another_trial_begins(trial, outcome, value):
    """A trial that was deleted, or failed, ended studies of others (katib#1830, clearml#644)."""
    (step,), decided = settled(seen(TrialSeen(number=0, **trial), running(1)))
    assert isinstance(step, EndTrials)
    assert [(one.number, one.outcome, one.value, one.place) for one in step.ends] == [(0, outcome, value, 0)]
    assert [one.number for one in decided.proposals] == [2]


def test_what_ended_first_has_the_first_place():
    late, early = (TrialSeen(number=n, state=State.SUCCEEDED, metric=0.1, ended_at=9.0 - n) for n in (0, 1))
    (step,) = decide(seen(late, early)).steps
    assert [(one.number, one.place) for one in step.ends] == [(1, 0)]
    after = advance(seen(late, early), [step])
    assert [one.number for one in decide(after).proposals] == [2], "before the other end is taken in"


def test_a_proposal_knows_the_first_that_ended_whenever_it_is_made():
    """So it is the same whether two ends are seen at once, or one after the other."""
    at_once = seen(ended(0, place=1), ended(1, place=0))
    assert decide(at_once).proposals == [Wanted(2, (1,)), Wanted(3, (1, 0))]
    assert settled(seen(TrialSeen(number=0, state=None), ended(1, place=0)))[1].proposals == [Wanted(2, (1,))]
    one_by_one = seen(running(0), ended(1, place=0))
    assert decide(one_by_one).proposals == [Wanted(2, (1,))]
    then = seen(ended(0, place=1), ended(1, place=0), running(2))
    assert decide(then).proposals == [Wanted(3, (1, 0))]


def test_an_experiment_that_was_retried_alone_is_open_again():
    steps, decided = settled(seen(ended(0, Reason.DATA_ERROR, state=State.QUEUED), running(1)))
    assert steps == [ReopenTrials((0,))]
    assert decided.proposals == ()


def test_it_ends_when_all_have_ended():
    all_of_them = [ended(number) for number in range(10)]
    assert decide(seen(*all_of_them)).steps == [StudyMove(StudyState.SUCCEEDED)]
    assert decide(seen(*all_of_them[:-1], running(9))).steps == []


def test_failures_in_a_row_end_it_with_the_commonest_reason():
    why = {"why": "no folder"}
    trials = [ended(0), ended(1, "DATA_ERROR", **why), ended(2, "CUDA_OOM"), ended(3, "DATA_ERROR", **why)]
    (move,) = decide(seen(*trials, running(4))).steps
    assert (move.to, move.reason) == (StudyState.STOPPING, StudyReason.EXPERIMENTS_FAILED)
    assert move.message == "3 trials failed one after the other, most often with DATA_ERROR: no folder"


@pytest.mark.parametrize("between", ["OK", "LOSS_NOT_FINITE"])
def test_a_result_between_failures_ends_the_row(between):
    trials = [ended(0, "DATA_ERROR"), ended(1, "DATA_ERROR"), ended(2, between), ended(3, "DATA_ERROR")]
    assert decide(seen(*trials)).proposals


@pytest.mark.parametrize("between", ["CANCELLED", "DELETED"])
def test_what_was_given_up_says_nothing_of_failures(between):
    trials = [ended(0, "DATA_ERROR"), ended(1, "DATA_ERROR"), ended(2, between), ended(3, "DATA_ERROR")]
    assert decide(seen(*trials)).steps[0].reason == StudyReason.EXPERIMENTS_FAILED


def test_failures_count_in_the_order_in_which_they_ended():
    trials = [ended(0, place=3), ended(1, "DATA_ERROR"), ended(2, "DATA_ERROR"), ended(3, "DATA_ERROR", place=0)]
    assert decide(seen(*trials)).proposals


def test_without_any_value_it_fails():
    few = {"limits": {"trials": 2}}
    (move,) = decide(seen(ended(0, "LOSS_NOT_FINITE"), ended(1, "CUDA_OOM"), **few)).steps
    assert (move.to, move.reason) == (StudyState.STOPPING, StudyReason.EXPERIMENTS_FAILED)
    (move,) = decide(seen(ended(0, "CANCELLED"), ended(1, "DELETED"), **few)).steps
    assert (move.to, "cancelled or deleted" in move.message) == (StudyState.SUCCEEDED, True)


def test_after_its_hours_nothing_begins_and_what_trains_is_cancelled():
    """Trials of others went on behind the end of their experiment (katib#2061)."""
    over = {"is_over": True, "limits": {"hours": 1.5}}
    assert decide(seen(ended(0), running(1), **over)).steps == [WishFor((1,), Desired.CANCEL)]
    assert decide(seen(ended(0), running(1, desired=Desired.CANCEL), **over)).steps == []
    (move,) = decide(seen(ended(0), ended(1, "CANCELLED"), **over)).steps
    assert (move.to, move.message) == (StudyState.SUCCEEDED, "its 1.5 hours are over, after 2 trials")


def test_a_cancel_ends_all_that_is_open_before_itself():
    stopping = seen(running(0), running(1, desired=Desired.CANCEL), state=StudyState.STOPPING)
    assert decide(stopping).steps == [WishFor((0,), Desired.CANCEL)]
    over = replace(stopping, trials=[ended(0, "CANCELLED"), ended(1)], reason=StudyReason.CANCELLED_BY_USER)
    assert decide(over).steps == [StudyMove(StudyState.CANCELLED, StudyReason.CANCELLED_BY_USER)]


def test_while_it_is_paused_ends_are_written_down_and_nothing_begins():
    trials = [ended(0), TrialSeen(number=1, state=State.SUCCEEDED, metric=0.5)]
    steps, decided = settled(seen(*trials, state=StudyState.PAUSED, desired=Desired.PAUSE))
    assert [type(step) for step in steps] == [EndTrials]
    assert decided.is_nothing


def test_retries_wait_for_a_place_and_go_before_new_trials():
    waiting = [TrialSeen(number=n, state=State.FAILED, outcome=TrialOutcome.RETRY) for n in range(4)]
    decided = decide(seen(*waiting, running(4)))
    assert (decided.retries, decided.proposals) == ([0], ())
    assert decide(seen(*waiting, running(4), running(5))).is_nothing


@pytest.mark.parametrize("state", StudyState)
@pytest.mark.parametrize("desired", [Desired.RUN, Desired.PAUSE, Desired.CANCEL])
@pytest.mark.parametrize("is_over", [False, True])
def test_every_move_is_in_the_table(state, desired, is_over):
    kinds = [running(0), ended(0), ended(0, "DATA_ERROR"), ended(0, "DELETED"), TrialSeen(number=0, state=State.FAILED)]
    for trial in kinds:
        now = seen(
            trial, state=state, desired=desired, is_over=is_over, limits={"trials": 1, "failed": 1, "hours": 1.0}
        )
        for step in settled(now)[1].steps:
            if isinstance(step, StudyMove):
                assert is_legal_study_move(state, step.to), (now, step)
