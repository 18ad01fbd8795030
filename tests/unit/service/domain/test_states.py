"""The state machine, tried over everything it can be asked."""

import itertools

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from service.database.engine import Database
from service.database.models.experiments import Event, LegalMove
from service.domain.states import (
    ACTIONS,
    HOLDS_GANG,
    MAX_FREE_RETRIES,
    MOVES,
    POLICY,
    TERMINAL,
    Desired,
    Move,
    Reason,
    Retry,
    Situation,
    State,
    decide,
    is_legal,
)
from service.domain.values import utc_now
from service.experiments.store import ExperimentStore
from tests.support.specs import spec
from workers.protocol import outcome as worker_outcome


def every_situation():
    flags = (False, True)
    outcomes = (None, "succeeded", "failed", "cancelled", "paused")
    reasons = (None, Reason.USER_ERROR, Reason.WORKER_DIED, Reason.START_TIMEOUT, Reason.DEADLINE_EXCEEDED)
    for state, desired, outcome, reason, late, gone, placed, stepped, restarts in itertools.product(
        State, Desired, outcomes, reasons, flags, flags, flags, flags, (0, 2)
    ):
        yield Situation(
            state=state,
            desired=desired,
            outcome=outcome,
            reason=reason,
            past_deadline=late,
            gang_gone=gone,
            placed=placed,
            stepped=stepped,
            max_restarts=restarts,
        )


def test_every_decision_is_a_legal_move():
    for situation in every_situation():
        move = decide(situation)
        assert move is None or is_legal(situation.state, move.to), situation


def test_what_has_ended_is_only_moved_by_a_retry_and_never_by_the_dispatcher():
    assert not MOVES[State.SUCCEEDED]
    assert all(MOVES[state] <= {State.QUEUED} for state in TERMINAL)
    assert all(decide(situation) is None for situation in every_situation() if situation.state in TERMINAL)


def test_nothing_is_given_up_while_its_processes_may_live():
    """Another attempt, a pause or a cancel is only done once nothing of the gang is left."""
    frees = {State.QUEUED, State.PAUSED, State.CANCELLED, State.FAILED}
    for situation in every_situation():
        if situation.state in HOLDS_GANG and not situation.gang_gone:
            move = decide(situation)
            assert move is None or move.to not in frees, situation


def test_every_live_experiment_reaches_an_end_once_its_gang_is_gone():
    for situation in every_situation():
        if situation.state in HOLDS_GANG and situation.gang_gone:
            assert decide(situation) is not None, situation


def test_every_state_and_reason_is_in_its_table():
    assert set(MOVES) == set(ACTIONS) == set(State)
    assert set(POLICY) == set(Reason)


def test_every_reason_of_a_worker_is_a_reason_of_the_service():
    assert set(worker_outcome.Reason.__args__) <= set(Reason)


@pytest.mark.parametrize("reason", [reason for reason, retry in POLICY.items() if retry is Retry.FREE])
def test_a_fault_of_the_cluster_is_not_charged_to_the_user(reason):
    lost = {"state": State.RUNNING, "reason": reason, "gang_gone": True, "max_restarts": 0}
    assert decide(Situation(**lost)) == Move(State.QUEUED, reason, charge=Retry.FREE)
    capped = decide(Situation(**lost, free_retries=MAX_FREE_RETRIES))
    assert capped is not None
    assert capped.to is State.FAILED


def test_an_error_of_the_user_is_retried_as_often_as_the_spec_says_and_only_with_progress():
    failed = {"state": State.RUNNING, "outcome": "failed", "reason": Reason.USER_ERROR, "gang_gone": True}
    assert decide(Situation(**failed)).to is State.FAILED
    assert decide(Situation(**failed, max_restarts=1)).to is State.QUEUED
    assert decide(Situation(**failed, max_restarts=1, charged_retries=1)).to is State.FAILED
    assert decide(Situation(**failed, max_restarts=1, progressed=False)).to is State.FAILED


def test_who_yields_waits_again_and_is_not_charged():
    yields = Situation(state=State.RUNNING, desired=Desired.YIELD, outcome="paused", gang_gone=True)
    assert decide(yields) == Move(State.QUEUED, Reason.PREEMPTED)


def test_a_cancel_that_comes_too_late_leaves_the_success():
    late = Situation(state=State.CANCELLING, desired=Desired.CANCEL, outcome="succeeded")
    assert decide(late) == Move(State.SUCCEEDED)


def test_a_worker_that_dies_while_pausing_leaves_a_paused_experiment():
    died = Situation(state=State.PAUSING, desired=Desired.PAUSE, reason=Reason.WORKER_DIED, gang_gone=True)
    assert decide(died).to is State.PAUSED


def test_the_table_of_the_database_is_the_table_of_the_code(database: Database):
    with database.reading() as session:
        rows = {(row.from_state, row.to_state) for row in session.scalars(select(LegalMove))}
    assert rows == {(source, target) for source, targets in MOVES.items() for target in targets}


def test_the_database_refuses_an_event_of_an_illegal_move(database: Database, store: ExperimentStore):
    row, _ = store.submit(spec())
    illegal = Event(
        experiment_id=row.id, attempt=0, from_state="QUEUED", to_state="SUCCEEDED", by="somebody", at=utc_now()
    )
    with pytest.raises(IntegrityError), database.writing() as session:
        session.add(illegal)
