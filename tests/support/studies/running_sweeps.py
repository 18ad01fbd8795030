"""A dispatcher that ticks until a sweep is where the test wants it, or dies; and what can be told of the sweep then."""

import pytest
from sqlalchemy import select

from service.database.engine import Database
from service.database.models.studies import Decision, Trial
from service.dispatcher.dispatcher import Dispatcher
from service.domain.studies import StudyState
from service.studies.store import StudyStore
from service.testing import FakeClock
from tests.support.dispatching import tick
from tests.support.studies import killing


def finish(
    dispatcher: Dispatcher, studies: StudyStore, study_id: str, state: StudyState = StudyState.SUCCEEDED
) -> None:
    for _ in range(400):
        if studies.get(study_id).state == state:
            return
        tick(dispatcher)
        wait_for_proposals(dispatcher)
    pytest.fail(f"still {studies.get(study_id).state}: {rows(studies, study_id)}")


def rows(studies: StudyStore, study_id: str) -> list[Trial]:
    return [row.trial for row in studies.trials(study_id)]


def told(database: Database, study_id: str) -> tuple[list[tuple], list[tuple]]:
    """Every trial and every decision, without what differs from one study to the next: ids and times."""
    columns = (Trial.number, Trial.params, Trial.params_hash, Trial.informed_by, Trial.outcome, Trial.place)
    trial = select(*columns, Trial.value, Trial.seed).where(Trial.study_id == study_id).order_by(Trial.number)
    decided = select(Decision.kind, Decision.from_state, Decision.to_state, Decision.payload)
    with database.reading() as session:
        trials = session.execute(trial)
        decisions = session.execute(decided.where(Decision.study_id == study_id).order_by(Decision.seq))
        return [tuple(row) for row in trials], [tuple(row) for row in decisions]


def wait_for_proposals(dispatcher: Dispatcher) -> None:
    for planner in dispatcher.studies.planners.values():
        for _, future in getattr(getattr(planner, "_proposer", None), "_asked", {}).values():
            future.exception()


def live_and_die(dispatcher: Dispatcher, clock: FakeClock, *, writes: int) -> None:
    """Tick with all proposals answered, and die after so many transactions."""
    killing.live_and_die(dispatcher, clock, writes=writes, after_tick=wait_for_proposals)
