"""Gangs over several Ray nodes, which are several raylets of this one machine: nodes join, and nodes are lost."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.cluster.ray.cluster import RayCluster
from service.database.engine import Database
from service.database.models.experiments import Experiment
from service.dispatcher.dispatcher import Dispatcher
from service.domain.states import Reason, State
from service.experiments.store import ExperimentStore
from service.settings import Settings
from tests.support.ray_head import RAY_ENVIRONMENT, nodes_seen, ray_head, ray_node
from tests.support.specs import spec
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]
EPOCHS = 12
PATIENCE_SECONDS = 120.0


@dataclass
class Site:
    """A service on a cluster whose head has one CPU."""

    store: ExperimentStore
    cluster: RayCluster
    join: Callable[[], Callable[[], None]]

    def wait_for(self, experiment_id: str, what: str, condition: Callable[[Experiment], bool]) -> Experiment:
        wait_until(lambda: condition(self.store.get(experiment_id)), what, seconds=PATIENCE_SECONDS)
        return self.store.get(experiment_id)

    def nodes(self) -> int:
        return nodes_seen(self.cluster)


@contextmanager
def service_on(folder: Path, **head: Any) -> Iterator[Site]:
    """A service whose dispatcher runs in a thread, as it does in its process, and a head of one CPU."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in RAY_ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.setenv("OMP_NUM_THREADS", "1")
        address = stack.enter_context(ray_head(cpus=1, **head)).address
        settings = Settings(home=folder, ray_address=address, retry_backoff_seconds=0.1)
        database = Database(settings.database_url)
        stack.callback(database.close)
        database.migrate()
        cluster, stop = RayCluster(settings), threading.Event()
        thread = threading.Thread(target=Dispatcher(database, cluster, settings).run, args=(stop,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        yield Site(ExperimentStore(database), cluster, lambda: stack.enter_context(ray_node(address, folder)))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A cluster that grows by hand."""
    with service_on(tmp_path) as site:
        yield site


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Site]:
    """A cluster that Ray's autoscaler lets grow by nodes of one CPU."""
    with service_on(tmp_path, grows_by={"resources": {"CPU": 1}, "max_workers": 3}) as site:
        yield site


def test_an_autoscaler_adds_as_many_nodes_as_the_queue_needs(growing: Site):
    train = {"epochs": 1, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    row, _ = growing.store.submit(spec(train=train, resources={"workers": 2}))
    growing.wait_for(row.id, "success on a node that was added", lambda row: row.state == State.SUCCEEDED)
    (attempt,) = growing.store.attempts(row.id)
    assert len(set(attempt.node_ids)) == 2
    assert growing.nodes() == 2, "one more was wanted, of three that could be had"


def test_a_gang_that_waits_for_room_starts_when_a_node_joins_and_survives_its_loss(site: Site):
    train = {"epochs": EPOCHS, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    row, _ = site.store.submit(spec(train=train, resources={"workers": 2}))
    waiting = site.wait_for(row.id, "the reason it waits", lambda row: row.reason is not None)
    assert (waiting.state, waiting.reason) == (State.QUEUED, Reason.UNSCHEDULABLE)
    assert "1 CPU" in waiting.message

    vanish = site.join()
    site.wait_for(row.id, "the third epoch on two nodes", lambda row: row.progress.get("epoch", 0) >= 3)
    assert site.nodes() == 2
    vanish()
    lost = site.wait_for(row.id, "the loss to be seen", lambda row: row.state == State.QUEUED)
    assert (lost.free_retries, lost.charged_retries) == (1, 0)
    wait_until(lambda: site.nodes() == 1, "the node to be gone")

    site.join()
    site.wait_for(row.id, "success on another node", lambda row: row.state == State.SUCCEEDED)
    first, second = site.store.attempts(row.id)
    assert first.reason in (Reason.NODE_LOST, Reason.WORKER_DIED)
    assert len(first.node_ids) == len(second.node_ids) == 2
    assert first.node_ids != second.node_ids
    steps_per_epoch = second.last_step // EPOCHS
    assert second.resumed_from_step is not None
    assert second.resumed_from_step >= first.last_step - steps_per_epoch, "at most one checkpoint interval again"
    wait_until(lambda: not site.cluster.observe().gangs, "nothing to be held")
