"""A start is given so much time, and no more."""

from service.cluster.base import GangView
from service.cluster.in_memory import InMemoryCluster
from service.dispatcher.dispatcher import Dispatcher
from service.domain.states import Liveness, Reason, State
from tests.support.dispatching import tick, until
from tests.support.specs import spec


def test_an_attempt_that_never_takes_a_step_is_given_up_in_time(database, store, settings, clock):
    stuck = InMemoryCluster(steps_per_look=0)
    impatient = settings.model_copy(update={"start_timeout_seconds": 0.05})
    dispatcher = Dispatcher(database, stuck, impatient, clock=clock)
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.QUEUED, most=1)
    tick(dispatcher, 2)
    while store.get(row.id).free_retries == 0:
        tick(dispatcher)
    assert store.attempts(row.id)[0].reason == Reason.START_TIMEOUT


def test_an_attempt_that_finds_no_room_after_all_waits_for_it_again_and_is_not_charged(
    database, store, settings, clock
):
    class Full(InMemoryCluster):
        def _view(self, _gang):
            return GangView(liveness=Liveness.UNKNOWN)

    impatient = settings.model_copy(update={"start_timeout_seconds": 0.05})
    dispatcher = Dispatcher(database, Full(), impatient, clock=clock)
    row, _ = store.submit(spec())
    for _ in range(100):
        tick(dispatcher)
        if len(store.attempts(row.id)) == 3:
            break
    assert [attempt.reason for attempt in store.attempts(row.id)] == [Reason.START_TIMEOUT, Reason.START_TIMEOUT, None]
    assert store.get(row.id).free_retries == 0
    assert {event.message for event in store.events(row.id) if event.reason} == {
        "found no room in 0.05 s, though there seemed to be some"
    }
