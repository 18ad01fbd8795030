"""Rows: what is accepted is there, once, and in order."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import update

from service.database.engine import Database
from service.database.models.experiments import Experiment, IdempotencyKey
from service.database.operations import Operations
from service.database.transitions import change_state
from service.domain.filters import Filter
from service.domain.states import Move, State
from service.domain.values import utc_now
from service.errors import ExperimentDeleted, ExperimentNotFound, IdempotencyConflict, StaleMove
from service.experiments.keys import KEY_LIFE
from service.experiments.store import ExperimentStore
from tests.support.specs import spec


def test_a_submitted_experiment_is_queued_with_its_first_event(store: ExperimentStore):
    row, is_new = store.submit(spec(priority=3))
    assert is_new
    assert store.get(row.id).state == State.QUEUED
    assert store.get(row.id).priority == 3
    assert [(event.from_state, event.to_state, event.by) for event in store.events(row.id)] == [
        (None, "QUEUED", "local")
    ]


def test_a_key_gives_the_same_experiment_and_another_body_is_refused(store: ExperimentStore):
    first, _ = store.submit(spec(), key="k", body_hash="a")
    again, is_new = store.submit(spec(), key="k", body_hash="a")
    assert (again.id, is_new) == (first.id, False)
    with pytest.raises(IdempotencyConflict):
        store.submit(spec(), key="k", body_hash="b")


def test_a_key_whose_experiment_was_deleted_makes_no_other_one_until_it_means_nothing(store: ExperimentStore):
    first, _ = store.submit(spec(), key="k", body_hash="a")
    _cancel_and_delete(store, first)
    with pytest.raises(ExperimentDeleted):
        store.submit(spec(), key="k", body_hash="a")
    with pytest.raises(IdempotencyConflict):
        store.submit(spec(), key="k", body_hash="b")
    assert store.page(Filter())[0] == []
    other, is_new = store.submit(spec(), owner="bob", key="k", body_hash="a")
    assert (other.owner, is_new) == ("bob", True)
    with store.database.writing() as session:
        session.execute(update(IdempotencyKey).values(created_at=utc_now() - KEY_LIFE - timedelta(seconds=1)))
    assert store.submit(spec(), key="k", body_hash="a")[1] is True


def _cancel_and_delete(store: ExperimentStore, row: Experiment) -> None:
    with store.database.writing() as session:
        change_state(session, session.get_one(Experiment, row.id), Move(State.CANCELLED), by="test")
    store.delete(row.id, by="test")


def test_many_requests_with_one_key_at_once_make_one_experiment(store: ExperimentStore):
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(store.submit(spec(), key="k", body_hash="a")[0].id))
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 12
    assert len(set(ids)) == 1


def test_pages_show_every_experiment_once_the_newest_first(store: ExperimentStore):
    submitted = [store.submit(spec(name=f"n{index}"))[0].id for index in range(7)]
    seen: list[str] = []
    place = None
    while True:
        rows, place = store.page(Filter(), limit=3, after=place)
        seen += [row.id for row in rows]
        if place is None:
            break
    assert seen == submitted[::-1]


def test_a_list_can_be_narrowed(store: ExperimentStore):
    store.submit(spec(name="a_b", project="a"))
    store.submit(spec(name="axb", project="b"))
    assert [row.name for row in store.page(Filter(project="a"))[0]] == ["a_b"]
    assert [row.name for row in store.page(Filter(name_contains="a_"))[0]] == ["a_b"], (
        "_ is a letter here, not a wildcard"
    )
    assert store.page(Filter(states=[State.FAILED]))[0] == []


def test_an_unknown_id_has_a_name(store: ExperimentStore):
    for call in (store.get, store.events, store.attempts):
        with pytest.raises(ExperimentNotFound, match="nowhere"):
            call("nowhere")


def test_of_two_moves_from_one_state_only_one_is_made(database: Database, store: ExperimentStore):
    row, _ = store.submit(spec())
    mine, yours = store.get(row.id), store.get(row.id)
    with database.writing() as session:
        session.add(mine)
        change_state(session, mine, Move(State.CANCELLED), by="me")
    with pytest.raises(StaleMove), database.writing() as session:
        session.add(yours)
        change_state(session, yours, Move(State.STARTING), by="you")
    assert store.get(row.id).state == State.CANCELLED
    assert len(store.events(row.id)) == 2


def test_an_illegal_move_is_refused_before_it_is_written(database: Database, store: ExperimentStore):
    experiment_id = store.submit(spec())[0].id
    with pytest.raises(ValueError, match="QUEUED to SUCCEEDED"), database.writing() as session:
        row = session.get_one(Experiment, experiment_id)
        change_state(session, row, Move(State.SUCCEEDED), by="me")
    assert store.get(experiment_id).state == State.QUEUED


def test_many_may_open_a_new_file_at_once(tmp_path):
    """Without asking again, 1 in 100 of these met "database is locked" (300 files, 8 threads each)."""
    for turn in range(50):
        databases = [Database(f"sqlite:///{tmp_path}/{turn}.db") for _ in range(8)]
        together = threading.Barrier(len(databases))

        def journal_mode(database, together=together):
            together.wait()
            with database.engine.connect() as connection:
                return connection.exec_driver_sql("PRAGMA journal_mode").scalar()

        with ThreadPoolExecutor(len(databases)) as pool:
            assert list(pool.map(journal_mode, databases)) == ["wal"] * len(databases)
        for database in databases:
            database.close()


def test_migrating_twice_at_once_is_harmless(settings):
    databases = [Database(settings.database_url) for _ in range(4)]
    threads = [threading.Thread(target=database.migrate) for database in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Operations(databases[0]).count_by_state()[State.QUEUED] == 0
    for database in databases:
        database.close()
