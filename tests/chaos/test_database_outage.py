"""The database is cut off, and killed, under several writers: what was accepted is there, once, and ends."""

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from sqlalchemy.exc import OperationalError

from service.cluster.in_memory import InMemoryCluster
from service.database.engine import Database
from service.database.operations import Operations
from service.dispatcher.dispatcher import Dispatcher
from service.domain.states import TERMINAL, State
from service.experiments.store import ExperimentStore
from service.settings import Settings
from tests.chaos.lab import let_pass
from tests.chaos.proxy import CuttingProxy, cutting_proxy
from tests.support.postgresql import PostgresServer
from tests.support.specs import spec
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.postgresql]
COUNT = 30


@dataclass
class Service:
    """A dispatcher in a thread and a store, over one database."""

    settings: Settings
    store: ExperimentStore
    cluster: InMemoryCluster

    def submit(self, key: str) -> str:
        """As a client does: again and again, with one key, until it is accepted."""
        while True:
            try:
                return self.store.submit(spec(), key=key, body_hash="same")[0].id
            except OperationalError:
                time.sleep(0.05)

    def ended(self, ids: list[str]) -> bool:
        try:
            return all(self.store.get(one).state in TERMINAL for one in ids)
        except OperationalError:
            return False


def run_under(service: Service, harm: Callable[[], None]) -> list[str]:
    """Submit and run experiments while harm is done; gives their ids."""
    stop = threading.Event()
    dispatchers = [Dispatcher(Database(service.settings.database_url), service.cluster, service.settings)]
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(one.run, stop) for one in dispatchers]
        ids = list(pool.map(service.submit, (f"key-{index}" for index in range(COUNT))))
        try:

            def all_ended() -> bool:
                harm()
                return service.ended(ids)

            wait_until(all_ended, "all experiments to end", seconds=240)
        finally:
            stop.set()
        for one in running:
            one.result(timeout=60)
    for one in dispatchers:
        one.leadership.database.close()
    return ids


@pytest.fixture
def service(settings: Settings, url: str):
    quick = settings.model_copy(update={"database_url": url, "tick_seconds": 0.02, "lease_seconds": 3.0})
    database = Database(url)
    database.migrate()
    yield Service(quick, ExperimentStore(database), InMemoryCluster(steps_per_look=3))
    database.close()


@pytest.fixture
def direct(postgresql: PostgresServer, migrated: str):
    with postgresql.database(template=migrated) as url:
        yield url


@pytest.fixture
def proxy(postgresql: PostgresServer):
    with cutting_proxy(postgresql.port) as proxy:
        yield proxy


@pytest.fixture
def url(direct: str, postgresql: PostgresServer, proxy: CuttingProxy) -> str:
    return direct.replace(str(postgresql.port), str(proxy.port))


def assert_each_ran_once(service: Service, ids: list[str]) -> None:
    assert len(set(ids)) == COUNT
    assert Operations(service.store.database).count_by_state()[State.SUCCEEDED] == COUNT
    assert all(len(service.store.attempts(one)) == 1 for one in ids)
    assert len(service.cluster.starts) == len(set(service.cluster.starts)) == COUNT


def test_cut_connections_lose_nothing_and_double_nothing(service: Service, proxy: CuttingProxy, chance: random.Random):
    next_cut = time.monotonic()

    def cut() -> None:
        nonlocal next_cut
        if time.monotonic() > next_cut and proxy.cuts < 25:
            proxy.cut()
            next_cut = time.monotonic() + chance.uniform(0.05, 0.5)

    assert_each_ran_once(service, run_under(service, cut))
    assert proxy.cuts > 3


@pytest.mark.parametrize("seconds", [0, *(pytest.param(long, marks=pytest.mark.chaos) for long in (20, 60))])
def test_a_killed_database_is_waited_for(service: Service, postgresql: PostgresServer, seconds: int):
    kills = 0

    def kill() -> None:
        nonlocal kills
        if kills < 2 and service.cluster.starts[kills * 5 :]:
            postgresql.kill()
            kills += 1
            let_pass(seconds)
            postgresql.start()

    assert_each_ran_once(service, run_under(service, kill))
    assert kills == 2
