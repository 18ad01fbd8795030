"""The dispatcher's connections to Ray's head (its GCS) are cut, or held, while head, node and workers are well.

A driver of Ray keeps to the address that it is given, so all of these go through the proxy; the head's own processes
do not. Polls do not either: they go from the dispatcher to the worker.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from service.domain.states import State
from tests.chaos.lab import EPOCHS, let_pass
from tests.chaos.proxy import CuttingProxy, cutting_proxy
from tests.chaos.site import Site, site_on
from tests.support.journals import logged
from tests.support.ray_head import RAY_ENVIRONMENT, ray_head, ray_node
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.protocol.fence import holds
from workers.protocol.storage import ExperimentFolder

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(300)]
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else Ray asks for the proxy at the machine's own address
TRAIN = {"epochs": EPOCHS, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
PROXY_HOST = "127.0.0.2"  # a node puts the machine's own address in the place of 127.0.0.1
CUTS = 8
HELD_SECONDS = 20.0


@contextmanager
def proxied_site(folder: Path, *, nodes: int) -> Iterator[tuple[Site, CuttingProxy]]:
    """A dispatcher, and nodes beside the head's own, that know the head by the address of the proxy before it."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        for name, value in (RAY_ENVIRONMENT | LOOPBACK | {"OMP_NUM_THREADS": "1"}).items():
            patch.setenv(name, value)
        head = stack.enter_context(ray_head(cpus=2 // nodes))
        proxy = stack.enter_context(cutting_proxy(int(head.address.rpartition(":")[2]), host=PROXY_HOST))
        address = f"{PROXY_HOST}:{proxy.port}"
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")  # else no node may join
        for _ in range(nodes - 1):
            stack.enter_context(ray_node(address, folder))
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        yield stack.enter_context(site_on(head, folder, ray_address=address)), proxy


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, CuttingProxy]]:
    """One node, which is the head's."""
    with proxied_site(tmp_path_factory.mktemp("gcs"), nodes=1) as site:
        yield site


@pytest.mark.parametrize("harm", ["cut", "held"])
@pytest.mark.parametrize("phase", ["QUEUED", "STARTING", "RUNNING"])
def test_a_head_that_is_out_of_reach_costs_nothing(
    proxied: tuple[Site, CuttingProxy], chance: random.Random, phase: str, harm: str
):
    site, proxy = proxied
    if phase == "QUEUED":
        proxy.flows.clear()  # nothing can be started before the harm is done
    row, _ = site.store.submit(spec(train=TRAIN))
    site.wait_for(row.id, phase, lambda row: row.state == phase)
    do(harm, proxy, chance)
    assert_untouched(site, row.id)
    wait_until(lambda: not site.head.workers(), "the worker to be gone")


@pytest.mark.parametrize("harm", ["cut", "held"])
def test_a_node_that_cannot_reach_the_head_costs_a_gang_over_two_nodes_nothing(
    tmp_path: Path, chance: random.Random, harm: str
):
    """The second node and its worker lose the head together with the dispatcher; the two ranks go on."""
    with proxied_site(tmp_path, nodes=2) as (site, proxy):
        row, _ = site.store.submit(spec(train=TRAIN, resources={"workers": 2}))
        site.wait_for(row.id, "the first epoch", lambda row: row.progress.get("epoch", 0) >= 1)
        do(harm, proxy, chance)
        assert_untouched(site, row.id)
        (attempt,) = site.store.attempts(row.id)
        assert len(attempt.node_ids) == 2


def do(harm: str, proxy: CuttingProxy, chance: random.Random) -> None:
    """Cut all connections to the head again and again, or hold what is on its way for a while."""
    before = proxy.cuts
    if harm == "cut":
        proxy.flows.set()
        for _ in range(CUTS):
            proxy.cut()
            let_pass(chance.uniform(0, 0.5))
        assert proxy.cuts > before, "nothing goes through the proxy"
    else:
        proxy.flows.clear()
        let_pass(HELD_SECONDS)
        proxy.flows.set()


def assert_untouched(site: Site, experiment_id: str) -> None:
    """It succeeds with its first attempt, and every value is there once, in order."""
    site.wait_for(experiment_id, "its success", lambda row: row.state == State.SUCCEEDED)
    assert [attempt.number for attempt in site.store.attempts(experiment_id)] == [1]
    folder = ExperimentFolder(site.settings.storage_root, experiment_id)
    assert [hold.attempt for hold in holds(folder)] == [1]
    steps = site.store.get(experiment_id).progress["step"]
    values = logged(folder)
    assert [step for name, step in values if name == "train/loss"] == list(range(1, steps + 1))
    assert [step for name, step in values if name == "val/top1"] == [
        steps * epoch // EPOCHS for epoch in range(1, EPOCHS + 1)
    ]
