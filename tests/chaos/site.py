"""A service without its API and its MLflow: a dispatcher in a process of its own, on a Ray head of the test's."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from service.database.engine import Database
from service.database.lease import current_leader
from service.database.models.experiments import Experiment
from service.experiments.store import ExperimentStore
from service.settings import Settings
from tests.support.ray_head import RayHead
from tests.support.waiting import wait_until

PATIENCE_SECONDS = 120.0


@dataclass
class Site:
    """What a test needs of it."""

    head: RayHead
    store: ExperimentStore
    settings: Settings

    def wait_for(self, experiment_id: str, what: str, condition: Callable[[Experiment], bool]) -> Experiment:
        wait_until(lambda: condition(self.store.get(experiment_id)), what, seconds=PATIENCE_SECONDS)
        return self.store.get(experiment_id)


@contextmanager
def site_on(head: RayHead, folder: Path, *, ray_address: str | None = None) -> Iterator[Site]:
    """A dispatcher that leads; `ray_address` is by what address it knows the head, where that is another."""
    settings = Settings(home=folder, ray_address=ray_address or head.address)
    database = Database(settings.database_url)
    database.migrate()
    with _dispatcher(settings, folder / "dispatcher.log"):
        wait_until(lambda: current_leader(database), "the dispatcher to lead")
        yield Site(head, ExperimentStore(database), settings)
    database.close()


@contextmanager
def _dispatcher(settings: Settings, log: Path) -> Iterator[None]:
    """Kept as the stack keeps it."""
    variables = {
        "CBAM_HOME": str(settings.home),
        "CBAM_DATABASE_URL": settings.database_url,
        "CBAM_LINGER_SECONDS": "1",
        "RAY_ADDRESS": str(settings.ray_address),
    }
    command = [sys.executable, "-m", "service.dispatcher.supervisor", sys.executable, "-m", "service.dispatcher"]
    with (
        log.open("ab") as file,
        subprocess.Popen(command, env=os.environ | variables, stdout=file, stderr=file) as process,
    ):
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)
