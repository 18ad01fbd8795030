"""The service at work without a cluster: the real API behind a real socket, a real dispatcher, and a fake cluster."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.api.app import create_app
from service.cluster.in_memory import InMemoryCluster
from service.database.engine import Database
from service.dispatcher.dispatcher import Dispatcher
from service.experiments.store import ExperimentStore
from service.settings import Settings
from tests.support.live_server import serving


@dataclass(frozen=True)
class LiveService:
    """What a test needs of it."""

    url: str
    store: ExperimentStore
    cluster: InMemoryCluster


@contextmanager
def live_service(settings: Settings) -> Iterator[LiveService]:
    """Experiments that are submitted run, by steps that train nothing."""
    database = Database(settings.database_url)
    database.migrate()
    cluster = InMemoryCluster()
    dispatcher = Dispatcher(database, cluster, settings)
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,), daemon=True)
    with serving(create_app(settings)) as url:
        thread.start()
        try:
            yield LiveService(url, ExperimentStore(database), cluster)
        finally:
            stop.set()
            thread.join(timeout=20)
            database.close()
