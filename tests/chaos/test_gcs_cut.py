"""The dispatcher's connections to Ray's head (its GCS) are cut, or held, while head, node and workers are well.

A driver of Ray keeps to the address that it is given, so all of these go through the proxy; the head's own processes
do not. Polls do not either: they go from the dispatcher to the worker.
"""

import random
from collections.abc import Iterator

import pytest

from service.states import State
from tests.chaos.lab import EPOCHS, let_pass
from tests.chaos.proxy import CuttingProxy, cutting_proxy
from tests.chaos.site import Site, site_on
from tests.journals import logged
from tests.ray_head import RAY_ENVIRONMENT, ray_head
from tests.specs import spec
from tests.waiting import wait_until
from workers.fence import holds
from workers.storage import ExperimentFolder

pytestmark = [pytest.mark.ray, pytest.mark.chaos, pytest.mark.timeout(300)]
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # else Ray asks for the proxy at the machine's own address
CUTS = 8
HELD_SECONDS = 20.0


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, CuttingProxy]]:
    """A dispatcher that knows the head by the address of the proxy before it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (RAY_ENVIRONMENT | LOOPBACK | {"OMP_NUM_THREADS": "1"}).items():
            patch.setenv(name, value)
        with (
            ray_head(cpus=2) as head,
            cutting_proxy(int(head.address.rpartition(":")[2])) as proxy,
            site_on(head, tmp_path_factory.mktemp("gcs"), ray_address=f"127.0.0.1:{proxy.port}") as site,
        ):
            yield site, proxy


@pytest.mark.parametrize("harm", ["cut", "held"])
@pytest.mark.parametrize("phase", ["QUEUED", "STARTING", "RUNNING"])
def test_a_head_that_is_out_of_reach_costs_nothing(
    proxied: tuple[Site, CuttingProxy], chance: random.Random, phase: str, harm: str
):
    site, proxy = proxied
    if phase == "QUEUED":
        proxy.flows.clear()  # nothing can be started before the harm is done
    before = proxy.cuts
    train = {"epochs": EPOCHS, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    row, _ = site.store.submit(spec(train=train))
    site.wait_for(row.id, phase, lambda row: row.state == phase)
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
    site.wait_for(row.id, "its success", lambda row: row.state == State.SUCCEEDED)
    assert [attempt.number for attempt in site.store.attempts(row.id)] == [1]
    folder = ExperimentFolder(site.settings.storage_root, row.id)
    assert [hold.attempt for hold in holds(folder)] == [1]
    steps = site.store.get(row.id).progress["step"]
    values = logged(folder)
    assert [step for name, step in values if name == "train/loss"] == list(range(1, steps + 1))
    assert [step for name, step in values if name == "val/top1"] == [
        steps * epoch // EPOCHS for epoch in range(1, EPOCHS + 1)
    ]
    wait_until(lambda: not site.head.workers(), "the worker to be gone", seconds=30)
