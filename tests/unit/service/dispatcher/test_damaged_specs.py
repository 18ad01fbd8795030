"""Stored specs that an operator has damaged by hand: each fails by its own name, and is nobody else's trouble."""

from copy import deepcopy

import pytest
from sqlalchemy import text

from service.cluster.base import Node
from service.database.models.experiments import Experiment
from service.dispatcher.dispatcher import Dispatcher
from service.domain.roles import LOCAL
from service.domain.states import Move, Reason, State
from service.experiments.actions import act
from tests.support.dispatching import until
from tests.support.specs import spec, spec_dict

ENDLESS = {"epochs": 1000, "global_batch_size": 128}


def changed(*path, to=None):
    """A damage: what stands at the end of the path is another value, or gone."""

    def damage(stored):
        *parents, last = path
        inner = stored = deepcopy(stored)
        for name in parents:
            inner = inner[name]
        if to is None:
            del inner[last]
        else:
            inner[last] = to
        return stored

    return damage


DAMAGES = {
    "no resources": (changed("resources"), "/resources: "),
    "no train": (changed("train"), "/train: "),
    "no batch size": (changed("train", "global_batch_size"), "/train/global_batch_size: "),
    "no cpus": (changed("resources", "cpus_per_worker"), "/resources: without cpus_per_worker"),
    "no preemptible": (changed("preemptible"), "/preemptible: "),
    "no retry": (changed("retry"), "/retry: "),
    "no deadline": (changed("deadline_minutes"), "/deadline_minutes: "),
    "no model": (changed("model"), "/model: "),
    "a list for resources": (changed("resources", to=[]), "/resources: "),
    "a word for workers": (changed("resources", "workers", to="two"), "/resources/workers: "),
    "too many workers": (changed("resources", "workers", to=10**12), "/resources/workers: "),
    "an elastic without most": (changed("resources", "workers", to={"min": 1}), "/resources/workers/max: "),
    "a word for cpus": (changed("resources", "cpus_per_worker", to="1"), "/resources/cpus_per_worker: "),
    "a word for a batch size": (changed("train", "global_batch_size", to="128"), "/train/global_batch_size: "),
    "a batch that does not split": (changed("train", "accumulate", to=3), "a batch of 128"),
    "a share of a GPU that nobody can give": (changed("resources", "gpus_per_worker", to=5e-324), "ten-thousandths"),
    "accumulate 0": (changed("train", "accumulate", to=0), "/train/accumulate: "),
    "null": (lambda _: None, "/: "),
    "a list": (lambda _: [1], "/: "),
    "a text": (lambda _: "gone", "/: "),
    "a number": (lambda _: 7, "/: "),
}
NO_RESOURCES, NULL = DAMAGES["no resources"][0], DAMAGES["null"][0]


@pytest.fixture(params=DAMAGES)
def kind(request):
    return DAMAGES[request.param]


def spoil(store, experiment_id, damage=NO_RESOURCES):
    """Put a damage into the stored spec of an experiment, behind everybody's back."""
    with store.database.writing() as session:
        row = session.get(Experiment, experiment_id)
        row.spec = damage(row.spec)


def test_one_in_the_queue_fails_by_name_and_holds_up_nobody(dispatcher, store, cluster, kind):
    damage, words = kind
    bad, _ = store.submit(spec(priority=9))
    good, _ = store.submit(spec())
    spoil(store, bad.id, damage)
    until(dispatcher, store, good.id, State.SUCCEEDED)
    until(dispatcher, store, bad.id, State.FAILED)
    row = store.get(bad.id)
    assert row.reason == Reason.USER_ERROR
    assert "its stored spec" in row.message
    assert words in row.message


def test_a_stored_text_that_is_no_json_is_like_any_other_damage(dispatcher, store, database):
    if database.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL stores nothing but JSON")
    bad, _ = store.submit(spec(priority=9))
    good, _ = store.submit(spec())
    with database.writing() as session:
        session.execute(text("UPDATE experiments SET spec = '{\"name\": ' WHERE id = :id"), {"id": bad.id})
    until(dispatcher, store, good.id, State.SUCCEEDED)
    assert (store.get(bad.id).state, store.get(bad.id).attempt) == (State.FAILED, 0)
    assert "its stored spec" in store.get(bad.id).message


@pytest.mark.parametrize("state", [State.STARTING, State.RUNNING])
@pytest.mark.parametrize("is_new", [False, True], ids=["the same dispatcher", "a new dispatcher"])
def test_one_with_a_gang_fails_by_name_frees_it_and_goes_on_once_it_is_mended(
    dispatcher, database, store, cluster, settings, clock, state, is_new
):
    cluster.nodes = (Node("node-1", 3.0, 0.0, 3.0, 0.0),)
    bad, _ = store.submit(spec(train=ENDLESS | {"epochs": 3}, priority=9))
    good, _ = store.submit(spec(train=ENDLESS))
    until(dispatcher, store, bad.id, state)
    whole = dict(store.get(bad.id).spec)
    spoil(store, bad.id)
    if is_new:
        dispatcher.leadership.release()
        dispatcher = Dispatcher(database, cluster, settings, clock=clock)
    until(dispatcher, store, bad.id, State.FAILED)
    row = store.get(bad.id)
    assert (row.reason, row.attempt) == (Reason.USER_ERROR, 1)
    assert row.message.startswith("its stored spec is damaged: /resources: ")
    assert bad.id not in {key.experiment_id for key in cluster.observe().gangs}
    until(dispatcher, store, good.id, State.RUNNING)

    spoil(store, bad.id, lambda _: whole)
    act(store, bad.id, "retry", caller=LOCAL)
    until(dispatcher, store, bad.id, State.SUCCEEDED)
    assert len(store.attempts(good.id)) == 1


def test_the_record_of_a_success_counts_whatever_has_become_of_the_spec(dispatcher, store, cluster):
    row, _ = store.submit(spec(train=ENDLESS | {"epochs": 3}))
    until(dispatcher, store, row.id, State.RUNNING)
    cluster.steps_per_look = 1000
    cluster.observe()
    spoil(store, row.id)
    until(dispatcher, store, row.id, State.SUCCEEDED)
    assert store.get(row.id).progress["epochs"] == 3


def test_one_that_pauses_comes_to_its_pause_and_fails_by_name_when_it_is_resumed(dispatcher, store, cluster):
    cluster.obeys_stop = False
    row, _ = store.submit(spec(train=ENDLESS))
    until(dispatcher, store, row.id, State.RUNNING)
    act(store, row.id, "pause", caller=LOCAL)
    until(dispatcher, store, row.id, State.PAUSING)
    spoil(store, row.id, NULL)
    cluster.obeys_stop = True
    until(dispatcher, store, row.id, State.PAUSED)
    act(store, row.id, "resume", caller=LOCAL)
    until(dispatcher, store, row.id, State.FAILED)
    assert "its stored spec" in store.get(row.id).message


def test_one_that_is_cancelled_is_cancelled(dispatcher, store, cluster):
    cluster.obeys_stop = False
    row, _ = store.submit(spec(train=ENDLESS))
    until(dispatcher, store, row.id, State.RUNNING)
    act(store, row.id, "cancel", caller=LOCAL)
    until(dispatcher, store, row.id, State.CANCELLING)
    spoil(store, row.id)
    cluster.obeys_stop = True
    until(dispatcher, store, row.id, State.CANCELLED)


def test_the_api_shows_and_changes_it_as_any_other(http, leader, kind):
    damage, _ = kind
    store = http.app.state.store
    bad, good = (http.post("/v1/experiments", json=spec_dict(resources={"workers": 2})).json()["id"] for _ in range(2))
    spoil(store, bad, damage)
    assert {item["id"] for item in http.get("/v1/experiments").json()["items"]} == {bad, good}
    path = f"/v1/experiments/{bad}"
    assert isinstance(http.get(path).json()["spec"], dict)
    for place in ("/events", "/attempts", "/metrics", "/logs", "/logs?rank=1"):
        assert http.get(path + place).status_code == 200, place
    answer = http.patch(path, json={"tags": {"paper": "cbam"}, "priority": 3})
    assert (answer.status_code, answer.json()["tags"]) == (200, {"paper": "cbam"})
    assert [item["id"] for item in http.get("/v1/experiments?tag=paper:cbam").json()["items"]] == [bad]
    assert http.post(f"{path}/clone", json={}).status_code in (201, 422)
    assert http.post(f"{path}/clone", json=spec_dict()).status_code in (201, 422)
    leader.apply(store.get(bad), Move(State.FAILED, Reason.USER_ERROR))
    assert http.post(f"{path}/retry").status_code == 202
    assert http.post(f"{path}/cancel").status_code == 202


def test_a_copy_of_one_that_holds_no_fields_needs_all_of_them(http):
    experiment_id = http.post("/v1/experiments", json=spec_dict()).json()["id"]
    spoil(http.app.state.store, experiment_id, NULL)
    refused = http.post(f"/v1/experiments/{experiment_id}/clone", json={})
    assert refused.status_code == 422
    assert "/name" in {error["pointer"] for error in refused.json()["errors"]}
    assert http.post(f"/v1/experiments/{experiment_id}/clone", json=spec_dict()).status_code == 201
