"""The dispatcher over a real database and a fake cluster: every way that an experiment can go."""

from datetime import timedelta

import pytest
from sqlalchemy import text, update

from service.cluster.base import GangKey
from service.database.models.experiments import Attempt, Experiment
from service.dispatcher.dispatcher import Dispatcher
from service.dispatcher.liveness import PAUSE_GRACE_SECONDS
from service.domain.roles import LOCAL
from service.domain.states import Move, Reason, State
from service.domain.values import utc_now
from service.errors import IllegalAction, NotLeading
from service.experiments.actions import act
from service.experiments.store import ExperimentStore
from service.testing import FakeClock
from tests.support.dispatching import tick, until
from tests.support.specs import spec
from workers.protocol.outcome import read_outcome
from workers.protocol.storage import ExperimentFolder


def way(store: ExperimentStore, experiment_id: str) -> list[str]:
    return [event.to_state for event in store.events(experiment_id)]


def test_an_experiment_goes_from_queued_to_succeeded(dispatcher, store, cluster):
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.SUCCEEDED)
    assert way(store, row.id) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    done = store.get(row.id)
    assert done.progress["metrics"] == {"val/top1": 0.5, "test/top1": 0.5}
    assert done.summary == {"parameters": 1}
    assert done.ended_at is not None
    (attempt,) = store.attempts(row.id)
    assert (attempt.number, attempt.last_step, attempt.node_ids) == (1, 10, ["node-1"])
    assert attempt.ended_at is not None
    tick(dispatcher, 2)
    assert not cluster.gangs, "what has ended holds nothing"


def test_progress_is_in_the_row_while_it_runs(dispatcher, store):
    row, _ = store.submit(spec())
    tick(dispatcher, 4)
    running = store.get(row.id)
    assert running.state == State.RUNNING
    assert 0 < running.progress["step"] < running.progress["total_steps"] == 10


def test_a_cancel_ends_it_and_frees_what_it_holds(dispatcher, store, cluster):
    row, _ = store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, row.id, State.RUNNING)
    act(store, row.id, "cancel", caller=LOCAL)
    until(dispatcher, store, row.id, State.CANCELLED)
    assert store.get(row.id).reason == Reason.CANCELLED_BY_USER
    assert not cluster.observe().gangs


def test_a_worker_that_does_not_obey_a_cancel_is_killed_after_the_grace(dispatcher, store, cluster, clock, settings):
    cluster.obeys_stop = False
    row, _ = store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, row.id, State.RUNNING)
    act(store, row.id, "cancel", caller=LOCAL)
    tick(dispatcher, 3)
    assert store.get(row.id).state == State.CANCELLING
    clock.advance(settings.cancel_grace_seconds)
    tick(dispatcher, 3)
    assert store.get(row.id).state == State.CANCELLED
    assert not cluster.observe().gangs


def test_a_cancel_that_the_cluster_could_not_hear_is_said_again(dispatcher, store, cluster, settings):
    row, _ = store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.reachable = False
    act(store, row.id, "cancel", caller=LOCAL)
    tick(dispatcher, 2)
    cluster.reachable = True
    tick(dispatcher, 3)
    assert store.get(row.id).state == State.CANCELLED, "by the worker's own hand, long before the grace has passed"


def test_a_queued_experiment_is_cancelled_without_ever_starting(dispatcher, store, cluster):
    row, _ = store.submit(spec(resources={"workers": 8}))
    act(store, row.id, "cancel", caller=LOCAL)
    tick(dispatcher)
    assert way(store, row.id) == ["QUEUED", "CANCELLED"]
    assert not cluster.starts


def test_a_pause_frees_the_gang_and_a_resume_starts_another_attempt(dispatcher, store, cluster):
    row, _ = store.submit(spec(train={"epochs": 3, "global_batch_size": 128}))
    until(dispatcher, store, row.id, State.RUNNING)
    act(store, row.id, "pause", caller=LOCAL)
    until(dispatcher, store, row.id, State.PAUSED)
    assert not cluster.observe().gangs
    tick(dispatcher, 3)
    assert store.get(row.id).state == State.PAUSED
    act(store, row.id, "resume", caller=LOCAL)
    until(dispatcher, store, row.id, State.SUCCEEDED)
    assert [attempt.number for attempt in store.attempts(row.id)] == [1, 2]
    assert store.get(row.id).free_retries == 0


def test_a_pause_that_is_not_obeyed_still_ends_paused(dispatcher, store, cluster, clock):
    cluster.obeys_stop = False
    row, _ = store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, row.id, State.RUNNING)
    act(store, row.id, "pause", caller=LOCAL)
    tick(dispatcher, 2)
    clock.advance(PAUSE_GRACE_SECONDS)
    until(dispatcher, store, row.id, State.PAUSED)


def test_a_dead_worker_costs_a_new_attempt_and_nothing_of_the_users(dispatcher, store, cluster):
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.kill(GangKey(row.id, 1))
    until(dispatcher, store, row.id, State.SUCCEEDED)
    assert way(store, row.id) == ["QUEUED", "STARTING", "RUNNING", "QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]
    first, second = store.attempts(row.id)
    assert (first.reason, second.reason) == (Reason.WORKER_DIED, None)
    assert first.node_ids == ["node-1"], "where it died is what an operator asks first"
    assert (store.get(row.id).free_retries, store.get(row.id).charged_retries) == (1, 0)


def test_a_gang_is_dead_only_after_a_time_and_a_number_of_looks(database, store, cluster, settings, clock):
    patient = settings.model_copy(update={"dead_after_seconds": 10.0, "dead_after_looks": 3})
    dispatcher = Dispatcher(database, cluster, patient, clock=clock)
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.kill(GangKey(row.id, 1))
    tick(dispatcher, 10)
    assert store.get(row.id).state == State.RUNNING, "enough looks, not enough time"
    clock.advance(10.0)
    tick(dispatcher, 3)
    assert [attempt.reason for attempt in store.attempts(row.id)][:1] == [Reason.WORKER_DIED]


def test_nothing_is_concluded_from_a_cluster_that_cannot_be_reached(dispatcher, store, cluster, clock):
    row, _ = store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.reachable = False
    for _ in range(20):
        clock.advance(60.0)
        tick(dispatcher)
    assert store.get(row.id).state == State.RUNNING
    cluster.reachable = True
    tick(dispatcher, 3)
    assert store.get(row.id).state == State.RUNNING
    assert len(store.attempts(row.id)) == 1


def test_a_start_that_was_out_of_sight_for_long_goes_on(dispatcher, store, cluster, clock):
    row, _ = store.submit(spec())
    cluster.steps_per_look = 0
    dispatcher.tick()
    cluster.reachable = False
    with store.database.writing() as session:
        session.execute(update(Attempt).values(started_at=utc_now() - timedelta(hours=1)))
    clock.advance(3600.0)
    tick(dispatcher, 2)
    cluster.reachable, cluster.steps_per_look = True, 1
    until(dispatcher, store, row.id, State.SUCCEEDED)
    assert len(store.attempts(row.id)) == 1


def test_a_pause_that_the_cluster_could_not_hear_is_given_its_grace_afterwards(dispatcher, store, cluster, clock):
    row, _ = store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, row.id, State.RUNNING)
    act(store, row.id, "pause", caller=LOCAL)
    cluster.reachable = False
    for _ in range(3):
        clock.advance(PAUSE_GRACE_SECONDS)
        tick(dispatcher)
    cluster.reachable = True
    until(dispatcher, store, row.id, State.PAUSED)
    record = read_outcome(ExperimentFolder(dispatcher.settings.storage_root, row.id).attempt(1))
    assert record is not None, "killed without a checkpoint"
    assert record.outcome == "paused"


def test_a_gang_that_does_not_answer_is_neither_dead_nor_hung(dispatcher, store, cluster, clock):
    row, _ = store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.answers, cluster.steps_per_look = False, 0
    for _ in range(20):
        clock.advance(600.0)
        tick(dispatcher)
    assert not cluster.dumped
    cluster.answers, cluster.steps_per_look = True, 1
    tick(dispatcher, 3)
    assert (store.get(row.id).state, len(store.attempts(row.id))) == (State.RUNNING, 1)
    cluster.answers = False
    act(store, row.id, "cancel", caller=LOCAL)
    until(dispatcher, store, row.id, State.CANCELLED)


def test_a_result_record_counts_even_where_the_cluster_is_away(dispatcher, store, cluster):
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.RUNNING)
    while not cluster.gangs[GangKey(row.id, 1)].outcome:
        cluster.observe()
    cluster.reachable = False
    tick(dispatcher, 2)
    assert store.get(row.id).state == State.SUCCEEDED


def test_where_no_record_can_be_written_the_word_of_the_workers_counts(dispatcher, store, cluster):
    cluster.writes_records = False
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.fail(GangKey(row.id, 1), "DATA_ERROR", "the disk is full")
    until(dispatcher, store, row.id, State.FAILED)
    assert (store.get(row.id).reason, store.get(row.id).message) == (Reason.DATA_ERROR, "the disk is full")


def test_a_head_that_lost_everything_costs_an_attempt(dispatcher, store, cluster):
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.forget()
    until(dispatcher, store, row.id, State.SUCCEEDED)
    assert store.attempts(row.id)[0].reason == Reason.CLUSTER_LOST


def test_an_error_of_the_experiment_ends_it_with_its_reason_and_message(dispatcher, store, cluster):
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.fail(GangKey(row.id, 1), "LOSS_NOT_FINITE", "the loss became nan at step 3")
    until(dispatcher, store, row.id, State.FAILED)
    assert (store.get(row.id).reason, store.get(row.id).message) == (
        Reason.LOSS_NOT_FINITE,
        "the loss became nan at step 3",
    )


def test_a_gang_that_gives_no_sign_of_life_is_ended_after_its_stacks_are_written(
    dispatcher, store, cluster, clock, settings
):
    row, _ = store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.steps_per_look = 0
    tick(dispatcher, 2)
    clock.advance(settings.hang_seconds - 2)
    tick(dispatcher)
    assert not cluster.dumped
    clock.advance(3)
    tick(dispatcher)
    assert cluster.dumped == [GangKey(row.id, 1)]
    assert store.get(row.id).state == State.RUNNING
    clock.advance(5)
    cluster.steps_per_look = 1
    tick(dispatcher, 2)
    assert store.get(row.id).state == State.RUNNING, "it came back to life in time"
    cluster.steps_per_look = 0
    tick(dispatcher, 2)
    clock.advance(settings.hang_seconds)
    tick(dispatcher)
    clock.advance(5)
    tick(dispatcher, 4)
    assert store.attempts(row.id)[0].reason == Reason.HANG_DETECTED


def test_a_deadline_ends_what_runs_and_what_waits(dispatcher, store):
    late = spec(train={"epochs": 1000, "global_batch_size": 128}, deadline_minutes=1e-3)
    running, _ = store.submit(late)
    waiting, _ = store.submit(spec(resources={"workers": 8}, deadline_minutes=1e-3))
    until(dispatcher, store, running.id, State.FAILED, most=2000)
    until(dispatcher, store, waiting.id, State.FAILED)
    assert store.get(running.id).reason == store.get(waiting.id).reason == Reason.DEADLINE_EXCEEDED


def test_a_new_dispatcher_finds_running_gangs_and_leaves_them_alone(database, store, cluster, settings, clock):
    first = Dispatcher(database, cluster, settings, clock=clock)
    row, _ = store.submit(spec(train={"epochs": 3, "global_batch_size": 128}))
    until(first, store, row.id, State.RUNNING)
    first.leadership.release()
    second = Dispatcher(database, cluster, settings, clock=clock)
    until(second, store, row.id, State.SUCCEEDED)
    assert len(store.attempts(row.id)) == 1
    assert cluster.starts == [GangKey(row.id, 1)]


def test_a_claim_whose_dispatcher_died_before_the_launch_is_launched_by_the_next(database, store, cluster, settings):
    first = Dispatcher(database, cluster, settings)
    row, _ = store.submit(spec())
    assert first.leadership.renew()
    first.store.claim(first.store.queue()[0], 1)
    first.leadership.release()
    second = Dispatcher(database, cluster, settings, clock=FakeClock())
    until(second, store, row.id, State.SUCCEEDED)
    assert cluster.starts == [GangKey(row.id, 1)]


def test_the_cluster_is_told_which_attempt_each_gang_runs_by_the_rows(
    dispatcher, store, cluster, clock, settings, database
):
    """A warm gang bears another's name. Of two rows that name it, the one that was claimed last has it."""
    ended, runs = (store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))[0] for _ in range(2))
    tick(dispatcher, 2)
    assert cluster.expected == {f"{row.id}-1": GangKey(row.id, 1) for row in (ended, runs)}, "each has its own"
    with database.writing() as session:
        session.execute(update(Attempt).where(Attempt.experiment_id == runs.id).values(gang=f"{ended.id}-1"))
    dispatcher.leadership.release()
    tick(Dispatcher(database, cluster, settings, clock=clock))
    assert cluster.expected == {f"{ended.id}-1": GangKey(runs.id, 1)}


def test_a_gang_that_nobody_wants_is_freed(dispatcher, store, cluster):
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.RUNNING)
    stray = cluster.gangs[GangKey(row.id, 1)].launch
    cluster.start(type(stray)(**{**vars(stray), "key": GangKey("stray", 1)}))
    tick(dispatcher, 2)
    assert GangKey("stray", 1) not in cluster.gangs
    assert GangKey(row.id, 1) in cluster.gangs


def test_only_the_leader_moves_anything(database, store, cluster, settings, clock):
    leader, other = (Dispatcher(database, cluster, settings, clock=clock) for _ in range(2))
    leader.tick()
    row, _ = store.submit(spec())
    tick(other, 5)
    assert store.get(row.id).state == State.QUEUED
    with pytest.raises(NotLeading):
        other.store.apply(store.get(row.id), Move(State.CANCELLED))
    tick(leader, 2)
    assert store.get(row.id).state != State.QUEUED


def test_neither_a_record_nor_a_word_with_another_token_is_believed(dispatcher, store, cluster):
    row, _ = store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, row.id, State.RUNNING)
    gang = cluster.gangs[GangKey(row.id, 1)]
    gang.launch = type(gang.launch)(**{**vars(gang.launch), "token": "somebody else's"})
    cluster.fail(GangKey(row.id, 1), "USER_ERROR")
    tick(dispatcher, 5)
    assert store.get(row.id).state == State.RUNNING


def test_a_stored_spec_that_is_not_valid_any_more_fails_alone(dispatcher, store, database):
    bad, _ = store.submit(spec(priority=1))
    good, _ = store.submit(spec())
    with database.writing() as session:
        row = session.get(Experiment, bad.id)
        row.spec = row.spec | {"model": {"backbone": "of another release"}}
    until(dispatcher, store, good.id, State.SUCCEEDED)
    until(dispatcher, store, bad.id, State.FAILED)
    assert store.get(bad.id).reason == Reason.USER_ERROR
    assert "of another release" in store.get(bad.id).message


def test_one_that_cannot_be_settled_holds_up_nobody(dispatcher, store, database):
    refused, fine = (store.submit(spec(resources={"workers": 8}))[0] for _ in range(2))
    act(store, refused.id, "cancel", caller=LOCAL)
    act(store, fine.id, "pause", caller=LOCAL)
    with database.writing() as session:  # the database itself refuses the first one's move
        session.execute(text("DELETE FROM legal_moves WHERE from_state = 'QUEUED' AND to_state = 'CANCELLED'"))
    tick(dispatcher)
    assert [store.get(row.id).state for row in (refused, fine)] == [State.QUEUED, State.PAUSED]


def test_a_failed_experiment_can_be_tried_again(dispatcher, store, cluster):
    row, _ = store.submit(spec())
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.fail(GangKey(row.id, 1), "USER_ERROR")
    until(dispatcher, store, row.id, State.FAILED)
    act(store, row.id, "retry", caller=LOCAL)
    until(dispatcher, store, row.id, State.SUCCEEDED)
    assert [attempt.number for attempt in store.attempts(row.id)] == [1, 2]
    with pytest.raises(IllegalAction, match="SUCCEEDED"):
        act(store, row.id, "retry", caller=LOCAL)
