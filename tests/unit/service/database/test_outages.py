"""A database that cannot be used for a while: 503 by name, not ready, and everything goes on afterwards."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from prometheus_client import generate_latest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from service.cluster.in_memory import InMemoryCluster
from service.database.engine import Database
from service.database.operations import Operations
from service.database.outages import CROWDED, FULL, LOCKED, READ_ONLY, Unusable
from service.domain.states import State
from service.experiments.store import ExperimentStore
from tests.support.specs import spec, spec_dict
from tests.support.waiting import wait_until

PRAGMAS = {READ_ONLY: "query_only = ON", FULL: "max_page_count = 1", LOCKED: "busy_timeout = 20"}


@contextmanager
def harmed(database: Database, kind: str) -> Iterator[None]:
    """The database is like this meanwhile, for connections of old as for new ones."""
    url = database.engine.url
    with ExitStack() as stack:
        if url.get_backend_name() == "sqlite":
            assert url.database is not None

            def configure(connection: sqlite3.Connection, _entry: object) -> None:
                connection.execute(f"PRAGMA {PRAGMAS[kind]}")

            event.listen(database.engine, "connect", configure)
            stack.callback(event.remove, database.engine, "connect", configure)
            if kind == LOCKED:
                other = sqlite3.connect(url.database, isolation_level=None)
                stack.callback(other.close)
                other.execute("BEGIN IMMEDIATE")
        else:
            admin = url.set(drivername="postgresql").render_as_string(hide_password=False)
            connection = stack.enter_context(psycopg.connect(admin, autocommit=True))
            connection.execute(f'ALTER DATABASE "{url.database}" SET default_transaction_read_only = on')
            stack.callback(connection.execute, f'ALTER DATABASE "{url.database}" RESET default_transaction_read_only')
            stack.callback(connection.execute, "SET default_transaction_read_only = off")
        _forget_connections(database)
        yield
    _forget_connections(database)


def _forget_connections(database: Database) -> None:
    """One that is given back later would be nobody's."""
    wait_until(lambda: database.engine.pool.checkedout() == 0, "all connections to be given back")
    database.close()


@pytest.fixture(params=[READ_ONLY, LOCKED])
def kind(request, database_url: str) -> str:
    """What is wrong with it; of a PostgreSQL server its being read-only can be had without harming other tests."""
    if not database_url.startswith("sqlite") and request.param != READ_ONLY:
        pytest.skip("not to be had for one database alone")
    return str(request.param)


def test_what_cannot_be_written_is_a_503_by_name_and_the_server_not_ready(http, kind):
    database = http.app.state.store.database
    with harmed(database, kind):
        answer = http.post("/v1/experiments", json=spec_dict())
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2"), answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["detail"] == kind
        assert http.get("/v1/experiments").json()["items"] == [], "what reads goes on"
        wait_until(lambda: http.get("/readyz").status_code == 503, "the server not to be ready")
        ready = http.get("/readyz").json()
        assert not ready["ready"]
        assert ready["components"]["database"]["detail"].startswith(kind)
    assert http.post("/v1/experiments", json=spec_dict()).status_code == 201
    wait_until(lambda: http.get("/readyz").status_code == 200, "the server to be ready")


def test_a_full_disk_is_a_503_by_name(http, database_url):
    if not database_url.startswith("sqlite"):
        pytest.skip("not to be had for one database alone")
    with harmed(http.app.state.store.database, FULL):
        answer = http.post("/v1/experiments", json=spec_dict(description="x" * 4000))
        assert (answer.status_code, answer.json()["detail"]) == (503, FULL)
        assert http.app.state.store.database.is_unwritable, "/readyz will try to write"


def test_readiness_comes_back_though_nobody_writes(http, kind):
    store = http.app.state.store
    with harmed(store.database, kind):
        with pytest.raises(OperationalError):
            store.submit(spec())
        with pytest.raises(OperationalError):
            Operations(store.database).ping()
    Operations(store.database).ping()


def test_a_pool_without_a_free_connection_is_a_503_by_name(http, monkeypatch):
    engine = http.app.state.store.database.engine
    monkeypatch.setattr(engine.pool, "_timeout", 0.05)
    with ExitStack() as stack:
        with pytest.raises(PoolTimeout):
            while True:
                stack.enter_context(engine.connect())
        answer = http.get("/v1/experiments")  # the gate asks first
        assert (answer.status_code, answer.json()["detail"]) == (503, CROWDED)
        assert answer.headers["Retry-After"] == "2"
        with pytest.raises(Unusable):
            http.app.state.operations.ping()
    assert http.get("/v1/experiments").status_code == 200


def test_what_we_did_wrong_ourselves_stays_a_500(http):
    database = http.app.state.store.database
    with pytest.raises(ProgrammingError), database.reading() as session:
        session.execute(text("SELECT * FROM nothing"))
    with database.writing() as session:
        session.execute(text("DROP TABLE webhook_deliveries"))
        session.execute(text("DROP TABLE webhooks"))
    assert http.get("/v1/webhooks").status_code == 500
    assert http.get("/readyz").json()["components"]["database"]["ok"]


def test_the_dispatcher_waits_and_goes_on(database, store: ExperimentStore, dispatcher, cluster: InMemoryCluster, kind):
    stop = threading.Event()
    store.submit(spec())
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    with harmed(database, kind):
        thread.start()
        wait_until(lambda: database.is_unwritable, "the dispatcher to try")
    try:
        wait_until(lambda: Operations(store.database).count_by_state()[State.SUCCEEDED] == 1, "the experiment to end")
    finally:
        stop.set()
        thread.join(timeout=30)
    assert not thread.is_alive()
    assert dispatcher.report.trouble == ""
    assert "cbam_dispatcher_failed_ticks_total 0.0" in generate_latest(dispatcher.report.registry).decode()


def test_audit_events_wait_too(http, kind):
    audit = http.app.state.audit
    with harmed(http.app.state.store.database, kind):
        assert http.post("/v1/experiments", json=spec_dict()).status_code == 503
        assert not audit._prune()
        wait_until(lambda: audit._thread.is_alive() and len(audit._entries) == 1, "the event to be tried and kept")
    wait_until(lambda: [row.status for row in audit.page(actor=None, before=None, limit=5)] == [503], "the event")
