"""What the dispatcher relies on, tried on the fake cluster and on a real Ray head with real training."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.cluster.base import Cluster, GangKey, GangView, Launch, Need
from service.cluster.in_memory import InMemoryCluster
from service.domain.states import Liveness, Reason
from service.settings import Settings
from tests.support.ray_head import RAY_ENVIRONMENT, RayHead, nodes_seen, ray_head
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.protocol.outcome import Outcome, read_outcome
from workers.protocol.storage import ExperimentFolder

FOR_EVER = 1e6  # seconds
LONG = {"epochs": 2000, "global_batch_size": 128}


@dataclass
class Lab:
    """A cluster to try, how to see it as a second dispatcher does, and how to kill one of its workers."""

    cluster: Cluster
    again: Callable[[], Cluster]
    kill: Callable[[GangKey], None]
    storage: Path
    pids: Callable[[], set[int]] = set

    def launch(self, name: str, attempt: int = 1, **changes: object) -> Launch:
        key = GangKey(name, attempt)
        chosen = spec(**changes)
        return Launch(
            key=key,
            token=f"token-{key}",
            spec=chosen,
            workers=chosen.world_sizes[0],
            storage=self.storage,
            tracking_uri=None,
        )

    def view(self, key: GangKey, cluster: Cluster | None = None) -> GangView | None:
        return (cluster or self.cluster).observe().gangs.get(key)

    def wait_for_step(self, key: GangKey, step: int = 1, cluster: Cluster | None = None) -> int:
        def reached() -> int:
            view = self.view(key, cluster)
            return view.progress.step if view and view.liveness is Liveness.ALIVE and view.progress.step >= step else 0

        return wait_until(reached, f"step {step} of {key}", seconds=120)

    def wait_for_record(self, key: GangKey) -> Outcome:
        folder = ExperimentFolder(self.storage, key.experiment_id).attempt(key.attempt)

        def record() -> Outcome | None:
            self.cluster.observe()
            return read_outcome(folder)

        return wait_until(record, f"the result record of {key}", seconds=120)

    def free_cpus(self) -> float:
        return sum(node.free_cpus for node in self.cluster.observe().nodes)

    def release(self, key: GangKey) -> None:
        self.cluster.release(key)
        wait_until(lambda: self.view(key) is None, f"{key} to be gone")


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head(cpus=2) as head:
        yield head


@pytest.fixture(params=["memory", pytest.param("ray", marks=pytest.mark.ray)])
def lab(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    if request.param == "memory":
        fake = InMemoryCluster()
        yield Lab(fake, lambda: fake, fake.kill, tmp_path)
        return
    from service.cluster.ray.cluster import RayCluster

    head: RayHead = request.getfixturevalue("head")
    for name, value in RAY_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    settings = Settings(home=tmp_path, ray_address=head.address)
    clusters = [RayCluster(settings)]
    clusters[0].lead(FOR_EVER)

    def again() -> Cluster:
        clusters.append(RayCluster(settings))
        clusters[-1].lead(FOR_EVER)
        clusters[-1].expect({})  # as a dispatcher does whose rows name no gang
        wait_until(lambda: nodes_seen(clusters[-1]), "the second connection")
        return clusters[-1]

    def kill(_key: GangKey) -> None:
        head.workers()[-1].kill()

    wait_until(lambda: nodes_seen(clusters[0]), "a connection to Ray")
    pids = lambda: {worker.pid for worker in head.workers()}  # noqa: E731
    yield Lab(clusters[0], again, kill, tmp_path, pids)
    for key in clusters[0].observe().gangs:
        clusters[0].release(key)
    wait_until(lambda: not clusters[0].observe().gangs, "every gang to be gone")
    for cluster in reversed(clusters):
        cluster.close()


def test_a_gang_trains_holds_its_cpus_and_leaves_a_record(lab: Lab):
    launch = lab.launch("one")
    lab.cluster.start(launch)
    lab.wait_for_step(launch.key)
    assert lab.free_cpus() == 1.0
    record = lab.wait_for_record(launch.key)
    assert (record.outcome, record.token) == ("succeeded", launch.token)
    lab.release(launch.key)
    assert lab.free_cpus() == 2.0


def test_two_workers_train_one_network(lab: Lab):
    launch = lab.launch("two", resources={"workers": 2})
    lab.cluster.start(launch)
    lab.wait_for_step(launch.key)
    assert lab.free_cpus() == 0.0
    assert lab.wait_for_record(launch.key).outcome == "succeeded"


def test_starting_again_changes_nothing(lab: Lab):
    launch = lab.launch("again", train=LONG)
    lab.cluster.start(launch)
    step = lab.wait_for_step(launch.key, 3)
    lab.cluster.start(launch)
    assert lab.wait_for_step(launch.key, step + 1) > step
    assert len(lab.cluster.observe().gangs) == 1
    assert lab.free_cpus() == 1.0


@pytest.mark.parametrize(("mode", "ending"), [("cancel", "cancelled"), ("pause", "paused")])
def test_a_gang_that_is_asked_to_stop_stops_and_says_so(lab: Lab, mode, ending):
    launch = lab.launch(mode, train=LONG)
    lab.cluster.start(launch)
    lab.wait_for_step(launch.key)
    lab.cluster.stop(launch.key, mode)
    assert lab.wait_for_record(launch.key).outcome == ending


def test_a_second_dispatcher_finds_the_gang_where_it_is(lab: Lab):
    launch = lab.launch("found", train=LONG)
    lab.cluster.start(launch)
    step = lab.wait_for_step(launch.key, 3)
    second = lab.again()
    second.start(launch)
    assert lab.wait_for_step(launch.key, step, cluster=second) >= step
    second.stop(launch.key, "cancel")
    assert lab.wait_for_record(launch.key).outcome == "cancelled"


def test_a_second_dispatcher_is_not_held_up_by_a_gang_that_waits_for_room(lab: Lab):
    launch = lab.launch("stuck", resources={"workers": 64}, train={"epochs": 1, "global_batch_size": 64})
    lab.cluster.start(launch)
    if not isinstance(lab.cluster, InMemoryCluster):
        wait_until(lambda: str(launch.key) in lab.cluster.groups, "the reservation, which is never granted")
    second = lab.again()
    assert lab.view(launch.key, second) is not None
    second.release(launch.key)
    wait_until(lambda: lab.view(launch.key, second) is None, "the gang to be gone")


def test_a_dead_worker_is_seen(lab: Lab):
    launch = lab.launch("dies", train=LONG)
    lab.cluster.start(launch)
    lab.wait_for_step(launch.key)
    lab.kill(launch.key)

    def dead() -> GangView | None:
        view = lab.view(launch.key)
        return view if view and view.liveness is Liveness.DEAD else None

    assert wait_until(dead, "the death to be seen").reason is Reason.WORKER_DIED
    lab.release(launch.key)
    assert lab.free_cpus() == 2.0


def test_what_is_not_there_can_be_released_and_stopped(lab: Lab):
    lab.cluster.release(GangKey("never", 1))
    lab.cluster.stop(GangKey("never", 1), "cancel")
    assert lab.view(GangKey("never", 1)) is None


def test_a_gang_that_waits_for_room_can_be_released(lab: Lab):
    launch = lab.launch("wide", resources={"workers": 64}, train={"epochs": 1, "global_batch_size": 64})
    lab.cluster.start(launch)
    assert lab.view(launch.key) is not None
    lab.release(launch.key)
    assert lab.free_cpus() == 2.0


def test_a_gang_that_ended_well_takes_the_next_attempt_of_its_shape(lab: Lab):
    first, second = lab.launch("warm1"), lab.launch("warm2")
    lab.cluster.start(first)
    lab.wait_for_record(first.key)
    lab.cluster.release(first.key, linger=True)
    wait_until(lambda: lab.view(first.key) is None, "the gang to be free")
    # It lingers for 60 s, and holds nothing meanwhile.
    wait_until(lambda: lab.free_cpus() == 2.0, "who lingers to hold nothing that somebody else needs", seconds=30)
    workers = lab.pids()
    lab.cluster.start(second)
    assert lab.wait_for_record(second.key).outcome == "succeeded"
    assert lab.pids() == workers, "the very same process"


def test_the_next_attempt_may_come_before_the_gang_has_let_go(lab: Lab):
    first, second = lab.launch("before1"), lab.launch("before2")
    lab.cluster.start(first)
    lab.wait_for_record(first.key)
    workers = lab.pids()
    lab.cluster.release(first.key, linger=True)
    lab.cluster.start(second)
    assert lab.view(second.key) is not None, "it is known from the start"
    assert lab.wait_for_record(second.key).outcome == "succeeded"
    assert lab.pids() == workers, "the very same process"


def test_what_others_do_on_the_same_ray_cluster_is_not_free(lab: Lab):
    if isinstance(lab.cluster, InMemoryCluster):
        pytest.skip("nobody else is there")
    import ray

    class Others:
        """Somebody's own actor."""

    stranger = ray.remote(Others).options(num_cpus=1).remote()
    wait_until(lambda: lab.free_cpus() == 1.0, "the other's CPU to be taken")
    launch = lab.launch("beside", train=LONG)
    lab.cluster.start(launch)
    lab.wait_for_step(launch.key)
    wait_until(lambda: lab.free_cpus() == 0.0, "all to be taken")
    ray.kill(stranger)
    wait_until(lambda: lab.free_cpus() == 1.0, "the other's CPU to be free again")


def test_a_gang_of_another_shape_gets_the_room_of_one_that_lingers(lab: Lab):
    first, second = lab.launch("narrow"), lab.launch("broad", resources={"workers": 2})
    lab.cluster.start(first)
    lab.wait_for_record(first.key)
    lab.cluster.release(first.key, linger=True)
    wait_until(lambda: lab.view(first.key) is None, "the gang to be free")
    lab.cluster.start(second)
    assert lab.wait_for_record(second.key).outcome == "succeeded"
    assert lab.free_cpus() == 0.0


def test_who_only_waits_for_its_turn_leaves_what_the_leader_started_alone(lab: Lab):
    """A second dispatcher that saw the gang before it had begun took it for idle, and killed it after its time."""
    if isinstance(lab.cluster, InMemoryCluster):
        pytest.skip("it does nothing by itself")
    standby = lab.again()
    standby.leads_until = 0.0  # as after its lease has run out
    standby.linger_seconds = 0.0
    launch = lab.launch("led", train=LONG)
    lab.cluster.start(launch)
    step = lab.wait_for_step(launch.key, 3)
    assert not standby.lead(FOR_EVER), "its time had run out, so it looks at everything anew"
    wait_until(lambda: nodes_seen(standby), "the new look")
    assert lab.wait_for_step(launch.key, step + 1, cluster=standby) > step
    assert standby.lead(FOR_EVER)


@pytest.mark.ray
def test_the_autoscaler_is_told_what_waits_and_what_runs(lab: Lab):
    """The request stands in Ray's own table, where its autoscaler reads it; what runs is in it, lest it be lost."""
    if isinstance(lab.cluster, InMemoryCluster):
        pytest.skip("it has no autoscaler")
    running = lab.launch("runs", train=LONG)
    lab.cluster.start(running)
    lab.wait_for_step(running.key)
    for waiting, told in ([Need(2, 1.0, 0.5)], [{"CPU": 1.0}, *[{"CPU": 1.0, "GPU": 0.5}] * 2]), ([], []):
        lab.cluster.ask_for(waiting)
        wait_until(lambda told=told: _told_to_autoscaler() == told, f"the autoscaler to know of {told}")


@pytest.mark.ray
def test_a_new_dispatcher_withdraws_what_one_that_is_gone_asked_for(lab: Lab):
    """Ray keeps a request for ever: without a word of the new one, it would hold nodes that nobody needs."""
    if isinstance(lab.cluster, InMemoryCluster):
        pytest.skip("it has no autoscaler")
    lab.cluster.ask_for([Need(2, 1.0, 0.5)])
    wait_until(lambda: _told_to_autoscaler() == [{"CPU": 1.0, "GPU": 0.5}] * 2, "the request")
    lab.cluster.leads_until = 0.0  # as after its lease has run out
    lab.again().ask_for([])
    wait_until(lambda: _told_to_autoscaler() == [], "its end")
    lab.cluster.lead(FOR_EVER)
    wait_until(lambda: nodes_seen(lab.cluster), "the new look")


def _told_to_autoscaler() -> list[dict[str, float]]:
    from ray.autoscaler._private.constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL
    from ray.experimental.internal_kv import _internal_kv_get

    return json.loads(_internal_kv_get(AUTOSCALER_RESOURCE_REQUEST_CHANNEL) or "[]")
