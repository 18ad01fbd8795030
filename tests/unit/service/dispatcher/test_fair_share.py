"""Owners share the cluster: who submits with which token decides whose share it is, from HTTP to the gang."""

import pytest

from service.cluster.in_memory import InMemoryCluster
from service.dispatcher.dispatcher import Dispatcher
from service.domain.states import State
from service.experiments.store import ExperimentStore
from service.schemas.auth import TokenRequest
from tests.support.dispatching import tick, until
from tests.support.specs import spec_dict


@pytest.fixture
def submit(http):
    """Submits with a new token of this name."""

    def submit(name: str) -> str:
        _, secret = http.app.state.tokens.create(TokenRequest(name=name), by="test")
        answer = http.post("/v1/experiments", json=spec_dict(), headers={"Authorization": f"Bearer {secret}"})
        return answer.json()["id"]

    return submit


def test_one_who_submits_much_does_not_keep_another_waiting(http, submit, settings, clock):
    cluster = InMemoryCluster(steps_per_look=1)  # room for two
    store: ExperimentStore = http.app.state.store
    many = [submit("ada") for _ in range(5)]
    one = submit("bob")
    dispatcher = Dispatcher(store.database, cluster, settings, clock=clock)
    until(dispatcher, store, one, State.SUCCEEDED)
    order = [key.experiment_id for key in cluster.starts]
    assert order.index(one) <= 2, "after what ran already, before the rest of ada's"
    assert sum(store.get(experiment_id).state == State.QUEUED for experiment_id in many) >= 2


def test_a_quota_is_each_owners_own_and_two_tokens_of_one_owner_share_it(http, submit, settings, clock):
    cluster = InMemoryCluster()
    store: ExperimentStore = http.app.state.store
    first, second = submit("ada"), submit("ada")
    other = submit("bob")
    quota = settings.model_copy(update={"quota_cpus": 1.0})
    dispatcher = Dispatcher(store.database, cluster, quota, clock=clock)
    tick(dispatcher, 3)
    assert {key.experiment_id for key in cluster.starts} == {first, other}
    assert "1 CPU" in store.get(second).message
    until(dispatcher, store, second, State.SUCCEEDED)
