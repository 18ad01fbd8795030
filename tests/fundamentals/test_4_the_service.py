"""The service: the API writes rows and wishes, the dispatcher makes the moves, a cluster runs the gangs.

The cluster here is the fake that the package ships; everything else is real. `tests/contract` holds the fake to what a
real Ray head does, and `tests/integration` runs all of it for real.
"""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.cluster.base import GangKey
from service.cluster.in_memory import InMemoryCluster
from service.dispatcher.dispatcher import Dispatcher
from service.settings import Settings
from service.testing import FakeClock
from tests.support.specs import spec_dict


class Lab:
    """An API, a dispatcher and a cluster in one process."""

    def __init__(self, http: TestClient, settings: Settings) -> None:
        self.http = http
        self.cluster = InMemoryCluster()
        self.clock = FakeClock()
        self.dispatcher = Dispatcher(http.app.state.store.database, self.cluster, settings, clock=self.clock)

    def submit(self, **changes: object) -> str:
        return self.http.post("/v1/experiments", json=spec_dict(**changes)).json()["id"]

    def state(self, experiment_id: str) -> str:
        return self.http.get(f"/v1/experiments/{experiment_id}").json()["state"]

    def tick(self, times: int = 1) -> None:
        for _ in range(times):
            self.dispatcher.tick()
            self.clock.advance(0.5)

    def states_of(self, experiment_id: str) -> list[str]:
        return [event["to_state"] for event in self.http.get(f"/v1/experiments/{experiment_id}/events").json()["items"]]


@pytest.fixture
def lab(settings: Settings) -> Iterator[Lab]:
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as http:
        yield Lab(http, settings)


def test_a_submitted_experiment_waits_in_the_database(lab: Lab):
    """201 means stored. No dispatcher, no Ray and no MLflow is needed for that."""
    experiment_id = lab.submit()
    assert lab.state(experiment_id) == "QUEUED"


def test_the_dispatcher_takes_it_from_there(lab: Lab):
    """Each tick looks at the rows and at the cluster, and makes the moves that are due."""
    experiment_id = lab.submit()
    lab.tick(15)
    assert lab.states_of(experiment_id) == ["QUEUED", "STARTING", "RUNNING", "SUCCEEDED"]


def test_a_user_says_what_they_want_and_the_dispatcher_makes_it_so(lab: Lab):
    """A cancel writes a wish and returns at once; CANCELLED is only said when nothing is left running."""
    experiment_id = lab.submit(train={"epochs": 1000, "global_batch_size": 128})
    lab.tick(3)
    assert lab.http.post(f"/v1/experiments/{experiment_id}/cancel").json()["state"] == "RUNNING"
    lab.tick(4)
    assert lab.state(experiment_id) == "CANCELLED"
    assert not lab.cluster.observe().gangs


def test_a_dead_worker_costs_an_attempt_and_not_the_experiment(lab: Lab):
    """A fault of the cluster is not charged to the user: a new attempt goes on from the last checkpoint."""
    experiment_id = lab.submit()
    lab.tick(3)
    lab.cluster.kill(GangKey(experiment_id, 1))
    lab.tick(20)
    assert lab.state(experiment_id) == "SUCCEEDED"
    attempts = lab.http.get(f"/v1/experiments/{experiment_id}/attempts").json()["items"]
    assert [attempt["reason"] for attempt in attempts] == ["WORKER_DIED", None]


def test_a_dispatcher_that_starts_anew_takes_over_what_runs(lab: Lab, settings: Settings):
    """All it knows is in the rows and on the cluster, so it may be killed at any time."""
    experiment_id = lab.submit()
    lab.tick(3)
    lab.dispatcher.leadership.release()
    lab.dispatcher = Dispatcher(lab.http.app.state.store.database, lab.cluster, settings, clock=lab.clock)
    lab.tick(15)
    assert lab.state(experiment_id) == "SUCCEEDED"
    assert lab.cluster.starts == [GangKey(experiment_id, 1)]
