"""How many workers stand by, when another one is started, and which of them stay."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.cluster.base import GangKey, Launch, Need, Node
from service.cluster.ray.cluster import RayCluster
from service.cluster.ray.gang import RayGang
from service.cluster.ray.standby import ANSWER_SECONDS, PLACE_SECONDS, STANDBY_NEED, Standby
from service.cluster.ray.worker import WorkerHandle
from service.settings import Settings
from tests.support.specs import spec

ROOM = (Node("one", 4, 0, 2, 0),)
FULL = (Node("one", 4, 0, 0, 0),)


def gang(name: str = "standby-1", *, need: Need = STANDBY_NEED, idle_for: float | None = 1.0) -> RayGang:
    """One that has its worker; it idles unless it is told not to."""
    made = RayGang(name, "test", standby=need)
    made.ranks = [WorkerHandle(None, answered=True)]
    made.idle_since = None if idle_for is None else time.monotonic() - idle_for
    return made


def launch(name: str = "new") -> Launch:
    return Launch(key=GangKey(name, 1), token="t", spec=spec(), workers=1, storage=Path("/s"), tracking_uri=None)


def test_a_spec_that_does_not_speak_of_resources_fits_a_worker_on_standby():
    assert (spec().world_sizes, launch().need) == ((1,), STANDBY_NEED)


def test_one_is_started_where_one_is_missing_and_fits():
    standby = Standby(2)
    assert GangKey.parse(standby.next([], ROOM) or ""), "a name by which a later dispatcher finds it"
    assert standby.next([gang()], ROOM)
    assert standby.next([gang(), gang("a-1", idle_for=None)], ROOM), "who trains does not stand by"
    assert standby.next([gang(), gang("a-1", need=Need(2, 1, 0))], ROOM), "nor does one of another shape"
    assert not standby.next([gang(), gang("standby-2")], ROOM)
    goes = gang()
    goes.releasing = True
    assert standby.next([gang(), goes], ROOM), "nor who is about to go"
    assert not standby.next([gang()], FULL)
    assert not Standby(0).next([], ROOM)


def test_none_is_started_while_a_gang_is_put_together():
    assert not Standby(2).next([RayGang("new-1", "test", launch=launch())], ROOM)
    assert not Standby(2).next([RayGang("standby-1", "test", standby=STANDBY_NEED)], ROOM)


def test_none_is_started_while_one_that_was_left_here_has_not_said_what_it_does():
    """It may stand by itself: else each change of the leader would add as many as there are."""
    left = RayGang("standby-1", "test")
    left.ranks = [WorkerHandle(None)]
    assert not Standby(2).next([left], ROOM)


def test_one_that_finds_no_place_is_let_go_and_the_next_one_waits():
    standby, placeless = Standby(1), RayGang("standby-1", "test", standby=STANDBY_NEED)
    standby.next([placeless], ROOM)
    assert placeless.idle
    placeless.idle_since = time.monotonic() - PLACE_SECONDS - 1
    standby.next([placeless], ROOM)
    assert placeless.releasing
    assert not standby.next([], ROOM)


def test_one_whose_worker_never_says_anything_is_let_go_and_the_next_one_waits():
    standby, mute = Standby(1), gang()
    mute.ranks = [WorkerHandle(None)]
    standby.next([mute], ROOM)
    assert mute.idle
    mute.idle_since = time.monotonic() - ANSWER_SECONDS - 1
    assert not standby.next([mute], ROOM)
    assert mute.releasing
    assert not standby.next([], ROOM)


def test_after_a_death_the_next_one_waits_for_a_while():
    standby = Standby(1, pause_seconds=7.0)
    standby.died()
    assert not standby.next([], ROOM)
    standby.not_before -= 7.0
    assert standby.next([], ROOM)


def test_the_youngest_are_kept():
    young, old, older = (gang(f"standby-{age}", idle_for=age) for age in (1, 20, 300))
    assert Standby(2).kept([older, young, old]) == [old, young]
    assert Standby(0).kept([young]) == []
    assert Standby(1).kept([gang(need=Need(1, 2, 0))]) == []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayCluster]:
    """One node of two CPUs, one worker on standby, and a thread that reaches no Ray."""
    cluster = RayCluster(Settings(home=tmp_path, ray_address="", standby_workers=1))
    cluster.nodes = [{"NodeID": "one", "Resources": {"CPU": 2.0}}]
    cluster.wanted = ()
    yield cluster
    cluster.close()


def test_it_is_started_once_nothing_waits(cluster: RayCluster):
    for cluster.wanted in (None, (STANDBY_NEED,), (Need(1, 1, 1), Need(2, 1, 0))):
        cluster._stand_by()
    assert not cluster.gangs, "not before the dispatcher has said that nothing waits"
    cluster.wanted = (Need(1, 1, 1), Need(3, 1, 0))  # which can never fit
    cluster._stand_by()
    cluster._stand_by()
    (started,) = cluster.gangs.values()
    assert (started.idle, started.known, started.key) == (True, True, None)
    assert not started.waits_for_room(None), "nobody else has to go for it"


def test_of_two_the_one_that_has_answered_is_given_away_first(cluster: RayCluster):
    cluster.gangs = {"standby-1": gang("standby-1"), "standby-2": gang("standby-2")}
    cluster.gangs["standby-1"].ranks = [WorkerHandle(None)]
    assert cluster.gang_for(launch().key, launch().need) == "standby-2"


def test_it_is_there_for_the_next_attempt(cluster: RayCluster):
    cluster._stand_by()
    (name,) = cluster.gangs
    assert cluster.gang_for(launch().key, launch().need) == name
    cluster.start(launch())
    cluster._settle_heirs()
    assert (cluster.gangs[name].key, cluster.gangs[name].idle) == (launch().key, False)


def test_it_outlasts_those_that_linger_but_makes_room(cluster: RayCluster):
    ages = {"standby-1": 1e6, "standby-2": 2e6}
    for name, age in ages.items():
        cluster.gangs[name] = gang(name, idle_for=age)
        cluster.groups[name] = {
            "state": "CREATED",
            "bundles": {0: {"CPU": 1.0}},
            "bundles_to_node_id": {0: "one"},
        }
    cluster._retire_idle()
    assert [name for name in ages if cluster.gangs[name].releasing] == ["standby-2"]
    large = spec(resources={"cpus_per_worker": 2})
    waiting = RayGang("new-1", "test", launch=Launch(**vars(launch()) | {"spec": large}))
    cluster.gangs["new-1"] = waiting
    cluster.groups["new-1"] = {"state": "PENDING", "bundles": {0: {"CPU": 2.0}}, "bundles_to_node_id": {}}
    cluster._retire_idle()
    assert cluster.gangs["standby-1"].releasing
