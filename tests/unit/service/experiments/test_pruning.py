"""Prune: files of ended experiments go, their rows stay, and what is not over loses nothing."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import update

from service.auth.tokens import Tokens
from service.database.models.experiments import Experiment, Pruning
from service.dispatcher.file_cleanup import FileCleanup
from service.domain.pruning import PruneScope
from service.domain.roles import Role
from service.domain.states import State
from service.domain.values import utc_now
from service.errors import IllegalAction, PrunedExperiment
from service.schemas.auth import TokenRequest
from tests.support.dispatching import tick, until
from tests.support.specs import spec, spec_dict
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder

LONG = {"train": {"epochs": 1000, "global_batch_size": 128}}


@pytest.fixture
def train(dispatcher, store, settings):
    """Runs an experiment until it is in a state, having written files; it is measured then. Gives its folder."""

    def train(ends: State, *, owner: str = "local", name: str = "digits") -> ExperimentFolder:
        row, _ = store.submit(spec(name=name, **({} if ends is State.SUCCEEDED else LONG)), owner=owner)
        until(dispatcher, store, row.id, State.RUNNING)
        folder = ExperimentFolder(settings.storage_root, row.id)
        for path, size in (
            (folder.checkpoints / "step-1" / "state.pt", 4000),
            (folder.weights, 300),
            (folder.attempt(1).log(0), 20),
            (folder.journal, 0),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * size)
        folder.journal.write_text('{"metrics": {"val/top1": 0.5}, "step": 1, "time": 1}\n')
        if ends in (State.CANCELLED, State.PAUSED):
            store.set_desired(row.id, lambda _: {State.CANCELLED: "cancel", State.PAUSED: "pause"}[ends])
        until(dispatcher, store, row.id, ends)
        settled(dispatcher, store, row.id)
        return folder

    return train


def settled(dispatcher, store, experiment_id):
    """What is asked of the dispatcher's threads is done: files removed, sizes measured, MLflow told."""

    def done():
        tick(dispatcher)
        row = store.get(experiment_id)
        with store.database.reading() as session:
            pending = session.get(Pruning, experiment_id)
        ended = row.state in (State.SUCCEEDED, State.FAILED, State.CANCELLED)
        return pending is None and row.disk_measured_at is not None and (row.tracking_closed or not ended)

    wait_until(done, "the dispatcher's threads")


def prune(http, headers=None, **body):
    answer = http.post("/v1/bulk/prune", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def later():
    return (utc_now() + timedelta(seconds=1)).isoformat()


def test_a_dry_run_comes_first_and_removes_nothing(http, train, dispatcher, store):
    folder = train(State.SUCCEEDED)
    seen = prune(http, filter={"ended_before": later()})
    (one,) = seen["results"]
    assert (seen["dry_run"], seen["bytes"], seen["next_cursor"]) == (True, 4000, None)
    assert (one["id"], one["ok"], one["bytes"], one["name"]) == (folder.experiment_id, True, 4000, "digits")
    settled(dispatcher, store, folder.experiment_id)
    assert folder.checkpoints.exists()
    assert store.get(folder.experiment_id).pruned is None
    assert prune(http, filter={"ended_before": one["ended_at"]})["results"] == [], "that moment is not included"


def test_checkpoints_go_and_all_else_stays_but_no_retry(http, train, dispatcher, store):
    folder = train(State.CANCELLED)
    path = f"/v1/experiments/{folder.experiment_id}"
    before = http.get(path).json()
    assert (before["files"]["checkpoint_bytes"], before["actions"]) == (4000, ["retry", "delete"])
    assert before["files"]["bytes"] > 4300
    assert prune(http, filter={"state": ["CANCELLED"]}, dry_run=False)["bytes"] == 4000
    settled(dispatcher, store, folder.experiment_id)

    assert not folder.checkpoints.exists()
    assert folder.weights.read_bytes() == b"x" * 300
    assert http.get(f"{path}/logs").text == "x" * 20
    assert http.get(f"{path}/metrics").json()["items"][0]["values"] == [0.5]
    after = http.get(path).json()
    assert (after["state"], after["spec"], after["actions"]) == ("CANCELLED", before["spec"], ["delete"])
    assert after["files"]["bytes"] == before["files"]["bytes"] - 4000
    assert (after["files"]["checkpoint_bytes"], after["files"]["pruned"]) == (0, "checkpoints")
    event = http.get(f"{path}/events").json()["items"][-1]
    assert (event["from_state"], event["to_state"], event["by"]) == (None, "CANCELLED", "local")
    assert event["message"] == "pruned: checkpoints, 4.0KB"

    for action in ("retry", "resume"):
        refused = http.post(f"{path}/{action}")
        assert (refused.status_code, refused.json()["legal"]) == (409, ["delete"])
        assert "its checkpoints were pruned on" in refused.json()["detail"]
    assert http.post(f"{path}/clone", json={}).status_code == 201
    assert prune(http, filter={"state": ["CANCELLED"]})["results"] == [], "there is nothing left to prune"
    assert prune(http, ids=[folder.experiment_id], dry_run=False)["results"][0]["ok"], "to ask twice is no error"


def test_all_files_go_and_whoever_asks_for_them_is_told(http, train, dispatcher, store):
    folder = train(State.SUCCEEDED)
    path, where = f"/v1/experiments/{folder.experiment_id}", {"state": ["SUCCEEDED"]}
    prune(http, filter=where, dry_run=False)
    settled(dispatcher, store, folder.experiment_id)
    assert prune(http, filter=where, what="all", dry_run=False)["bytes"] == store.get(folder.experiment_id).disk_bytes
    settled(dispatcher, store, folder.experiment_id)

    assert not folder.path.exists()
    for asked in ("logs", "logs/stream", "metrics"):
        gone = http.get(f"{path}/{asked}")
        assert (gone.status_code, gone.headers["content-type"]) == (410, "application/problem+json")
    shown = http.get(path).json()
    assert (shown["files"]["bytes"], shown["files"]["pruned"], shown["metrics"]["val/top1"]) == (0, "all", 0.5)
    assert [event["message"][:11] for event in http.get(f"{path}/events").json()["items"][-2:]] == [
        "pruned: che",
        "pruned: all",
    ]
    assert http.delete(path).status_code == 204


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED])
def test_what_has_not_ended_is_neither_found_nor_pruned(http, train, store, state):
    folder = train(state)
    for what in PruneScope:
        assert prune(http, filter={"project": "tests"}, what=what)["results"] == []
        (one,) = prune(http, ids=[folder.experiment_id], what=what, dry_run=False)["results"]
        assert (one["ok"], one["problem"]["status"]) == (False, 409)
        assert f"cannot prune an experiment that is {state}" in one["problem"]["detail"]
        assert one["problem"]["legal"][0] == "cancel"
    assert store.get(folder.experiment_id).pruned is None
    assert folder.checkpoints.exists()


def test_of_a_retry_and_a_pruning_at_once_one_is_refused(train, store):
    for round_ in range(6):
        folder = train(State.CANCELLED, name=f"n{round_}")
        refused: list[Exception] = []
        barrier = threading.Barrier(2)

        def attempt(call, refused=refused, barrier=barrier):
            barrier.wait()
            try:
                call()
            except IllegalAction as error:
                refused.append(error)

        calls = (
            lambda folder=folder: store.requeue(folder.experiment_id),
            lambda folder=folder: store.prune(folder.experiment_id, PruneScope.CHECKPOINTS, by="test"),
        )
        threads = [threading.Thread(target=attempt, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        row = store.get(folder.experiment_id)
        assert len(refused) == 1
        assert (row.state, row.pruned) in ((State.QUEUED, None), (State.CANCELLED, "checkpoints"))
        assert isinstance(refused[0], PrunedExperiment) == (row.pruned is not None)
        store.set_desired(row.id, lambda _: "cancel")


def test_each_prunes_their_own_and_admins_everybodys(http, train, store):
    tokens = Tokens(store.database)
    key = {
        name: {"Authorization": f"Bearer {tokens.create(TokenRequest(name=name, role=role), by='test')[1]}"}
        for name, role in (("ada", Role.USER), ("eve", Role.VIEWER), ("root", Role.ADMIN))
    }
    his, hers = train(State.SUCCEEDED, owner="bob").experiment_id, train(State.SUCCEEDED, owner="ada").experiment_id
    found = prune(http, key["ada"], filter={"ended_before": later()})["results"]
    assert [one["id"] for one in found] == [hers]
    assert prune(http, key["ada"], filter={"owner": "bob"}, dry_run=False)["results"] == []
    (one,) = prune(http, key["ada"], ids=[his], dry_run=False)["results"]
    assert (one["problem"]["status"], store.get(his).pruned) == (403, None)
    assert http.post("/v1/bulk/prune", json={"ids": [hers]}, headers=key["eve"]).status_code == 403
    assert http.post("/v1/bulk/prune", json={"filter": {}}, headers=key["root"]).status_code == 422
    found = prune(http, key["root"], filter={"ended_before": later()}, dry_run=False)["results"]
    assert [(one["id"], one["owner"]) for one in found] == [(his, "bob"), (hers, "ada")]
    assert {store.get(his).pruned, store.get(hers).pruned} == {"checkpoints"}


def test_what_mlflow_has_not_heard_keeps_the_files_that_it_stands_in(http, train, store):
    folder = train(State.SUCCEEDED)
    with store.database.writing() as session:
        session.execute(update(Experiment).values(tracking_closed=False))
    (one,) = prune(http, ids=[folder.experiment_id], what="all", dry_run=False)["results"]
    assert (one["problem"]["status"], "MLflow has not heard" in one["problem"]["detail"]) == (409, True)
    assert prune(http, ids=[folder.experiment_id], dry_run=False)["results"][0]["ok"]


def test_pages_show_the_longest_ended_first_and_each_once(http, train):
    ids = [train(State.SUCCEEDED, name=f"n{index}").experiment_id for index in range(3)]
    first = prune(http, filter={"project": "tests"}, limit=2, dry_run=False)
    assert [one["id"] for one in first["results"]] == ids[:2]
    last = prune(http, filter={"project": "tests"}, limit=2, dry_run=False, cursor=first["next_cursor"])
    assert ([one["id"] for one in last["results"]], last["next_cursor"]) == (ids[2:], None)


def test_an_experiment_whose_gang_is_still_seen_waits(train, store, dispatcher, settings):
    folder = train(State.SUCCEEDED)
    store.prune(folder.experiment_id, PruneScope.ALL, by="test")
    cleanup = FileCleanup(dispatcher.store, storage=settings.storage_root, clock=lambda: 1e9)
    cleanup.tick({folder.experiment_id})
    assert cleanup.under_way is None
    cleanup.not_before = 0
    cleanup.tick(())
    assert cleanup.under_way is not None
    cleanup.under_way.result()
    assert not folder.path.exists()
    cleanup.close()


def test_what_is_asked_for_while_less_is_removed_is_not_forgotten(train, store, dispatcher):
    folder = train(State.SUCCEEDED)
    files = dispatcher.file_cleanup.file_store
    store.prune(folder.experiment_id, PruneScope.CHECKPOINTS, by="test")
    store.prune(folder.experiment_id, PruneScope.ALL, by="test")
    files.close_pruning(folder.experiment_id, PruneScope.CHECKPOINTS)
    assert files.prunings() == {folder.experiment_id: PruneScope.ALL}
    store.delete(folder.experiment_id, by="test")
    assert files.prunings() == {}


def test_a_request_says_which_in_one_way(http):
    for body in ({}, {"ids": ["a"], "filter": {"q": "x"}}, {"ids": ["a"], "cursor": "x"}, {"ids": ["a"], "what": "?"}):
        assert http.post("/v1/bulk/prune", json=body).status_code == 422, body
    for cursor in ("x", "é"):
        body = {"filter": {"q": "x"}, "cursor": cursor}
        assert http.post("/v1/bulk/prune", json=body).status_code == 422
    (one,) = prune(http, ids=["nothere"])["results"]
    assert (one["problem"]["status"], one["name"]) == (404, None)


def test_a_list_may_be_of_what_ended_before_a_time(http, train):
    folder = train(State.SUCCEEDED)
    http.post("/v1/experiments", json=spec_dict(name="waits"))
    found = http.get("/v1/experiments", params={"ended_before": later()}).json()["items"]
    assert [one["id"] for one in found] == [folder.experiment_id]
    assert http.get("/v1/experiments", params={"ended_before": "2000-01-01"}).json()["items"] == []
