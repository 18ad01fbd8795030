"""Where SQLite and PostgreSQL differ, and the service must not."""

import json
import math
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.cluster.in_memory import InMemoryCluster
from service.database.engine import Database
from service.database.operations import Operations
from service.dispatcher.dispatcher import Dispatcher
from service.dispatcher.store import AttemptEnd, ProgressUpdate
from service.domain.filters import Filter
from service.domain.states import TERMINAL, Move, Reason, State
from service.experiments.store import ExperimentStore
from tests.support.specs import spec, spec_dict
from tests.support.waiting import wait_until


def test_a_message_with_what_no_database_can_hold_ends_an_experiment_all_the_same(store, dispatcher_store):
    experiment_id = store.submit(spec())[0].id
    dispatcher_store.claim(dispatcher_store.queue()[0], 1)
    ((row, _),) = dispatcher_store.live()
    dispatcher_store.apply(row, Move(State.FAILED, Reason.USER_ERROR, "a core\0dump \ud800 of it"), AttemptEnd())
    assert store.get(experiment_id).message == "a core�dump � of it"
    assert store.events(experiment_id)[-1].message == store.attempts(experiment_id)[0].message


def test_a_metric_that_is_not_finite_is_stored_as_unknown_and_shown_as_absent(http, leader):
    experiment_id = http.post("/v1/experiments", json=spec_dict()).json()["id"]
    leader.claim(leader.queue()[0], 1)
    ((row, _),) = leader.live()
    metrics = {"train/loss": math.nan, "val/loss": math.inf, "a": 1.5}
    leader.note_progress([ProgressUpdate(row.id, 1, {"step": 3, "metrics": metrics}, None)])
    shown = http.get(f"/v1/experiments/{experiment_id}").json()
    assert (shown["progress"]["step"], shown["metrics"]) == (3, {"a": 1.5})


@pytest.mark.parametrize("path", ["/v1/experiments/%00", "/v1/experiments/a%00b/events", "/v1/experiments/%ED%A0%80"])
def test_an_id_that_no_database_can_hold_is_not_found(http, path):
    assert http.get(path).status_code in (404, 422)


@pytest.mark.parametrize("query", ["project=%00", "q=a%00", "q=%ED%A0%80", "cursor=%00"])
def test_a_filter_that_no_database_can_hold_finds_nothing(http, query):
    http.post("/v1/experiments", json=spec_dict())
    answer = http.get(f"/v1/experiments?{query}")
    assert answer.status_code == 422 or answer.json()["items"] == []


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": "a\0"}, "/name"),
        ({"project": "\0"}, "/project"),
        ({"tags": {"note": "a\0b"}}, "/tags/note"),
        ({"tags": {"note": "\ud800"}}, "/tags/note"),
        ({"deadline_minutes": 1e300}, "/deadline_minutes"),
    ],
)
def test_a_spec_that_no_database_can_hold_is_refused(http, change, pointer):
    content = json.dumps(spec_dict(**change))
    answer = http.post("/v1/experiments", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_name_is_found_whatever_the_case(store):
    store.submit(spec(name="ResNet-CBAM"))
    assert [row.name for row in store.page(Filter(name_contains="resnet"))[0]] == ["ResNet-CBAM"]


def _submit_many(url, count, ids):
    database = Database(url)
    store = ExperimentStore(database)
    ids.extend([store.submit(spec(), key=f"shared-{index}", body_hash="same")[0].id for index in range(count)])
    database.close()


def test_several_server_processes_accept_at_once_and_each_key_makes_one_experiment(database, store, settings):
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        ids = manager.list()
        processes = [context.Process(target=_submit_many, args=(settings.database_url, 15, ids)) for _ in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
            assert process.exitcode == 0
        assert len(ids) == 45
        assert len(set(ids)) == 15
    assert Operations(store.database).count_by_state()[State.QUEUED] == 15


def test_two_dispatchers_at_once_run_each_experiment_once_and_one_follows_the_other(database, store, settings):
    cluster = InMemoryCluster(steps_per_look=5)
    quick = settings.model_copy(update={"tick_seconds": 0.01, "lease_seconds": 60.0})  # who ends gives it back
    databases = [Database(settings.database_url) for _ in range(2)]
    dispatchers = [Dispatcher(one, cluster, quick) for one in databases]
    stops = [threading.Event() for _ in dispatchers]
    ids = [store.submit(spec())[0].id for _ in range(12)]

    def ended() -> int:
        return sum(store.get(one).state in TERMINAL for one in ids)

    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(dispatcher.run, stop) for dispatcher, stop in zip(dispatchers, stops, strict=True)]
        try:
            wait_until(lambda: ended() > 2, "the first experiments to end")
            leading = [one.renewed_at is not None for one in dispatchers]
            assert sum(leading) == 1
            stops[leading.index(True)].set()
            wait_until(lambda: ended() == len(ids), "all experiments to end")
        finally:
            for stop in stops:
                stop.set()
        for run in runs:
            run.result(timeout=30)
    for one in databases:
        one.close()
    assert {store.get(one).state for one in ids} == {State.SUCCEEDED}
    assert cluster.starts == list(dict.fromkeys(cluster.starts)), "no attempt was started twice"
    assert all(len(store.attempts(one)) == 1 for one in ids)


def test_a_new_database_is_for_its_owner_alone(tmp_path):
    file = tmp_path / "new" / "cbam.db"
    database = Database(f"sqlite:///{file}")
    database.migrate()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (file.parent, *file.parent.iterdir())}
    database.close()
    assert modes == {"new": 0o700, "cbam.db": 0o600, "cbam.db-shm": 0o600, "cbam.db-wal": 0o600}
