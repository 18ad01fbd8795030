"""Admission put to work: the queue, a cluster, and what the rows say of those that wait."""

from contextlib import nullcontext
from unittest.mock import Mock

import pytest

from service.cluster.base import GangKey, Need, Node
from service.dispatcher import admission
from service.dispatcher import store as dispatcher_store
from service.dispatcher.dispatcher import Dispatcher
from service.domain.roles import LOCAL
from service.domain.states import Reason, State
from service.errors import StaleMove
from service.experiments.actions import act
from tests.support.dispatching import tick, until
from tests.support.specs import spec

ENDLESS = {"epochs": 1000, "global_batch_size": 128}


def test_the_larger_priority_goes_first_then_the_first_come(dispatcher, store, cluster):
    cluster.nodes = (Node("node-1", 1.0, 0.0, 1.0, 0.0),)
    late, early, urgent = (store.submit(spec(priority=priority))[0].id for priority in (0, 1, 5))
    for experiment_id in (urgent, early, late):
        until(dispatcher, store, experiment_id, State.SUCCEEDED)
    assert [key.experiment_id for key in cluster.starts] == [urgent, early, late]


def test_a_gang_waits_until_all_of_it_fits(dispatcher, store):
    one, _ = store.submit(spec())
    two, _ = store.submit(spec(resources={"workers": 2}))
    tick(dispatcher, 3)
    assert store.get(two.id).state == State.QUEUED
    until(dispatcher, store, one.id, State.SUCCEEDED)
    until(dispatcher, store, two.id, State.SUCCEEDED)


@pytest.mark.parametrize("error", [StaleMove("it was cancelled"), ConnectionError("the database is away")])
def test_a_gang_that_was_promised_to_a_claim_that_fails_is_promised_to_nobody(
    dispatcher, store, cluster, monkeypatch, error
):
    row, _ = store.submit(spec())
    promised, released = [], []
    monkeypatch.setattr(cluster, "gang_for", lambda key, _need: promised.append(key) or "warm-1")
    monkeypatch.setattr(cluster, "release", released.append)
    monkeypatch.setattr(dispatcher.store, "claim", Mock(side_effect=error))
    with nullcontext() if isinstance(error, StaleMove) else pytest.raises(ConnectionError):
        tick(dispatcher)
    assert promised == released == [GangKey(row.id, 1)]


def test_what_admission_cannot_weigh_fails_alone(dispatcher, store, monkeypatch):
    """As 1 / 5e-324 of a GPU did once: the error left the tick, and nobody's experiments went on."""
    real = admission.capacity

    def capacity(nodes, need):
        if need.cpus == 7:
            raise OverflowError("cannot convert float infinity to integer")
        return real(nodes, need)

    monkeypatch.setattr(admission, "capacity", capacity)
    bad, _ = store.submit(spec(priority=9, resources={"cpus_per_worker": 7}))
    good, _ = store.submit(spec())
    until(dispatcher, store, good.id, State.SUCCEEDED)
    failed = store.get(bad.id)
    assert (failed.state, failed.reason) == (State.FAILED, Reason.USER_ERROR)
    assert "admission cannot weigh what it needs: OverflowError: cannot convert" in failed.message


def test_an_error_that_is_no_experiments_own_is_no_experiments_end(dispatcher, store, monkeypatch):
    monkeypatch.setattr(admission._Round, "_consider", Mock(side_effect=[RuntimeError("once"), True]))
    row, _ = store.submit(spec())
    with pytest.raises(RuntimeError, match="once"):
        tick(dispatcher)
    assert store.get(row.id).state == State.QUEUED


def test_what_can_never_fit_says_why_and_the_rest_goes_on(dispatcher, store):
    huge, _ = store.submit(spec(resources={"workers": 8}, priority=9))
    small, _ = store.submit(spec())
    until(dispatcher, store, small.id, State.SUCCEEDED)
    waiting = store.get(huge.id)
    assert (waiting.state, waiting.reason) == (State.QUEUED, Reason.UNSCHEDULABLE)
    assert "8 × (1 CPU)" in waiting.message


def test_those_that_can_never_fit_keep_nobody_out_and_are_asked_anew_when_the_cluster_has_grown(
    dispatcher, store, cluster, monkeypatch
):
    monkeypatch.setattr(dispatcher_store, "QUEUE_WINDOW", 3)
    huge = [store.submit(spec(resources={"workers": 8}, priority=9))[0].id for _ in range(4)]
    large, _ = store.submit(spec(resources={"workers": 4}, priority=8))
    small, _ = store.submit(spec())
    until(dispatcher, store, small.id, State.SUCCEEDED)
    assert {store.get(one).reason for one in (*huge, large.id)} == {Reason.UNSCHEDULABLE}
    cluster.nodes = (Node("node-1", 4.0, 0.0, 4.0, 0.0),)
    until(dispatcher, store, large.id, State.SUCCEEDED)
    assert all("4 CPU" in store.get(one).message for one in huge)


def test_what_has_come_within_reach_and_waits_for_room_is_unschedulable_no_more(dispatcher, store, cluster):
    firm, _ = store.submit(spec(resources={"workers": 2}, train=ENDLESS))
    until(dispatcher, store, firm.id, State.RUNNING)
    large, _ = store.submit(spec(resources={"workers": 4}))
    tick(dispatcher, 2)
    assert store.get(large.id).reason == Reason.UNSCHEDULABLE
    cluster.nodes = (Node("node-1", 4.0, 0.0, 4.0, 0.0),)
    tick(dispatcher, 2)
    assert (store.get(large.id).reason, store.get(large.id).message) == (None, "")


def test_what_a_quota_held_back_does_not_say_so_while_it_waits_for_room(database, store, cluster, settings, clock):
    cluster.nodes = (Node("node-1", 1.0, 0.0, 1.0, 0.0),)
    dispatcher = Dispatcher(database, cluster, settings.model_copy(update={"quota_cpus": 1.0}), clock=clock)
    first, _ = store.submit(spec(train=ENDLESS), owner="ann")
    until(dispatcher, store, first.id, State.RUNNING)
    second, _ = store.submit(spec(), owner="ann")
    urgent, _ = store.submit(spec(train=ENDLESS, priority=5), owner="bob")
    tick(dispatcher, 2)
    assert "own experiments" in store.get(second.id).message
    act(store, first.id, "cancel", caller=LOCAL)
    until(dispatcher, store, urgent.id, State.RUNNING)
    tick(dispatcher, 2)
    assert (store.get(second.id).state, store.get(second.id).message) == (State.QUEUED, "")


def test_one_that_is_larger_than_its_owners_quota_is_told_so_and_nobody_asks_an_autoscaler_for_it(
    database, store, cluster, settings, clock
):
    dispatcher = Dispatcher(database, cluster, settings.model_copy(update={"quota_cpus": 1.0}), clock=clock)
    row, _ = store.submit(spec(resources={"workers": 2}))
    tick(dispatcher, 2)
    assert (store.get(row.id).state, store.get(row.id).reason) == (State.QUEUED, Reason.UNSCHEDULABLE)
    assert "never" in store.get(row.id).message
    assert cluster.asked_for == ()


def test_the_autoscaler_hears_of_what_waits_for_room(dispatcher, store, cluster):
    row, _ = store.submit(spec(resources={"workers": 8}))
    tick(dispatcher, 2)
    assert cluster.asked_for == (Need(8, 1, 0),)
    act(store, row.id, "cancel", caller=LOCAL)
    tick(dispatcher, 2)
    assert cluster.asked_for == ()


def test_a_higher_priority_displaces_what_may_be_displaced(dispatcher, store, cluster):
    weak, _ = store.submit(spec(preemptible=True, train={"epochs": 5, "global_batch_size": 128}))
    firm, _ = store.submit(spec(train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, weak.id, State.RUNNING)
    until(dispatcher, store, firm.id, State.RUNNING)
    urgent, _ = store.submit(spec(priority=5))
    until(dispatcher, store, urgent.id, State.SUCCEEDED)
    until(dispatcher, store, weak.id, State.SUCCEEDED)
    first, second = store.attempts(weak.id)
    assert (first.reason, second.reason) == (Reason.PREEMPTED, None)
    assert (store.get(weak.id).free_retries, store.get(weak.id).desired) == (0, "run")
    assert len(store.attempts(firm.id)) == 1


def test_a_cancel_stands_above_a_displacement(dispatcher, store, cluster):
    cluster.obeys_stop = False
    cluster.nodes = (Node("node-1", 1.0, 0.0, 1.0, 0.0),)
    weak, _ = store.submit(spec(preemptible=True, train={"epochs": 1000, "global_batch_size": 128}))
    until(dispatcher, store, weak.id, State.RUNNING)
    store.submit(spec(priority=5))
    tick(dispatcher, 2)
    assert store.get(weak.id).desired == "yield"
    act(store, weak.id, "cancel", caller=LOCAL)
    cluster.obeys_stop = True
    until(dispatcher, store, weak.id, State.CANCELLED)


def test_an_elastic_experiment_starts_with_what_fits(dispatcher, store, cluster):
    row, _ = store.submit(spec(resources={"workers": {"min": 1, "max": 8}}))
    until(dispatcher, store, row.id, State.SUCCEEDED)
    assert store.attempts(row.id)[0].workers == 2


def test_a_large_gang_is_passed_only_so_often(database, store, cluster, settings, clock):
    dispatcher = Dispatcher(database, cluster, settings.model_copy(update={"most_passes": 2}), clock=clock)
    running, _ = store.submit(spec(train={"epochs": 3, "global_batch_size": 128}))
    until(dispatcher, store, running.id, State.RUNNING)
    large, _ = store.submit(spec(resources={"workers": 2}))
    small = [store.submit(spec())[0].id for _ in range(4)]
    until(dispatcher, store, large.id, State.SUCCEEDED, most=200)
    before = [key.experiment_id for key in cluster.starts[: cluster.starts.index(GangKey(large.id, 1))]]
    assert before == [running.id, *small[:2]]


def test_a_quota_is_said_to_the_one_it_holds_back(database, store, cluster, settings, clock):
    dispatcher = Dispatcher(database, cluster, settings.model_copy(update={"quota_cpus": 1.0}), clock=clock)
    first, _ = store.submit(spec())
    second, _ = store.submit(spec())
    until(dispatcher, store, first.id, State.RUNNING)
    assert (store.get(second.id).state, store.get(second.id).reason) == (State.QUEUED, None)
    assert "1 CPU" in store.get(second.id).message
    until(dispatcher, store, second.id, State.SUCCEEDED)
