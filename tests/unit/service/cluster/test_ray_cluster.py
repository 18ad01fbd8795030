"""What RayCluster concludes from its tables, which are written here by hand: its thread reaches no Ray."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.cluster.base import GangKey, Launch, Need, Node
from service.cluster.ray.cluster import ROOM_SECONDS, RayCluster
from service.cluster.ray.free_resources import OTHERS_SECONDS, ForeignUsage, fits, foreign_usage
from service.cluster.ray.gang import RayGang
from service.settings import Settings
from tests.support.specs import spec

CPUS = 4


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[RayCluster]:
    """One node, and a thread that reaches no Ray."""
    cluster = RayCluster(Settings(home=tmp_path, ray_address=""))
    cluster.nodes = [{"NodeID": "one", "Resources": {"CPU": float(CPUS)}}]
    yield cluster
    cluster.close()


def launch(cpus: int = 1, name: str = "new") -> Launch:
    chosen = spec(resources={"cpus_per_worker": cpus})
    return Launch(key=GangKey(name, 1), token="t", spec=chosen, workers=1, storage=Path("/s"), tracking_uri=None)


def row(cpus: int, *, placed: bool = True) -> dict[str, Any]:
    """A row of Ray's table of placement groups."""
    state = "CREATED" if placed else "PENDING"
    return {"state": state, "bundles": {0: {"CPU": float(cpus)}}, "bundles_to_node_id": {0: "one"} if placed else {}}


def idle(cluster: RayCluster, name: str, cpus: int, *, seconds: float = 1.0) -> RayGang:
    """A gang that ended well so many seconds ago."""
    gang = RayGang(name, cluster.namespace)
    gang.known, gang.need, gang.idle_since = True, Need(1, cpus, 0), time.monotonic() - seconds
    cluster.gangs[name], cluster.groups[name] = gang, row(cpus)
    return gang


def waits(cluster: RayCluster, cpus: int) -> RayGang:
    """A gang that has no place yet."""
    gang = RayGang("new-1", cluster.namespace, launch=launch(cpus))
    cluster.gangs[gang.name], cluster.groups[gang.name] = gang, row(cpus, placed=False)
    return gang


@pytest.mark.parametrize(("cpus", "retired"), [(1, []), (2, ["long-1"]), (3, ["long-1", "short-1"])])
def test_as_many_idle_gangs_go_as_the_one_that_waits_needs(cluster: RayCluster, cpus: int, retired: list[str]):
    gangs = [idle(cluster, "long-1", 1, seconds=9.0), idle(cluster, "short-1", 1, seconds=2.0)]
    cluster.gangs["runs-1"] = RayGang("runs-1", cluster.namespace, launch=launch(name="runs"))
    cluster.groups["runs-1"] = row(1)
    waits(cluster, cpus)
    cluster._retire_idle()
    assert [gang.name for gang in gangs if gang.releasing] == retired
    cluster._retire_idle()
    assert [gang.name for gang in gangs if gang.releasing] == retired, "who is about to go is room enough"


def test_an_idle_gang_whose_going_makes_no_room_stays(cluster: RayCluster):
    small, large = idle(cluster, "small-1", 1, seconds=9.0), idle(cluster, "large-1", 3, seconds=10.0)
    waits(cluster, 3)
    cluster._retire_idle()
    assert (small.releasing, large.releasing) == (False, True)


def test_no_idle_gang_keeps_the_place_of_one_that_ray_gives_none(cluster: RayCluster):
    """Ray may see less room than we do: somebody else's work, or bundles that lie badly."""
    lingers, waiting = idle(cluster, "lingers-1", 1), waits(cluster, 1)
    cluster._retire_idle()
    assert not lingers.releasing
    waiting.begun_at -= ROOM_SECONDS
    cluster._retire_idle()
    assert lingers.releasing


def test_an_idle_gang_goes_after_its_time(cluster: RayCluster):
    lingers = idle(cluster, "lingers-1", 1, seconds=cluster.linger_seconds + 1.0)
    cluster._retire_idle()
    assert lingers.releasing


def test_what_is_missing_for_a_moment_is_not_somebody_elses():
    others, nodes = ForeignUsage(), (Node("one", 4, 1, 3, 1), Node("two", 4, 0, 4, 0))
    lags, holds, free = ({"one": {"CPU": cpus, "GPU": 1.0}, "two": {"CPU": 4.0}} for cpus in (0.0, 2.0, 3.0))
    half = OTHERS_SECONDS / 2
    for moment, seen in enumerate((lags, holds, holds)):
        assert not any(map(any, others.held.values())), "not long enough"
        others.look(foreign_usage(nodes, seen), 100.0 + moment * half)
    assert others.held == {"one": (1.0, 0.0), "two": (0.0, 0.0)}, "the least of what was missing all the time"
    others.look(foreign_usage(nodes, lags), 100.0 + 3 * half)
    assert others.held["one"] == (1.0, 0.0)
    others.look(foreign_usage(nodes, free), 100.1 + 3 * half)
    assert others.held["one"] == (0.0, 0.0), "what is free again counts at once"


def test_gangs_have_room_only_all_at_once():
    nodes = (Node("one", 4, 0, 2, 0), Node("two", 4, 0, 2, 0))
    assert fits([Need(2, 2, 0)], nodes)
    assert fits([Need(1, 2, 0), Need(1, 2, 0)], nodes)
    assert not fits([Need(2, 2, 0), Need(1, 1, 0)], nodes)


def test_a_gang_that_is_to_lie_on_one_node_needs_its_room_there():
    nodes = (Node("one", 4, 0, 2, 0), Node("two", 4, 0, 2, 0))
    assert fits([], nodes, on_one=[Need(2, 1, 0), Need(2, 1, 0)])
    assert fits([Need(2, 1, 0)], nodes, on_one=[Need(2, 1, 0)])
    assert not fits([], nodes, on_one=[Need(3, 1, 0)])
    assert fits([Need(3, 1, 0)], nodes)


def test_a_gang_is_to_lie_on_one_node_only_where_that_has_room_now(cluster: RayCluster):
    """And not where it had, but for another gang that is to begin there."""
    pairs = [spec(resources={"workers": 2, "cpus_per_worker": cpus}) for cpus in (1, 1, 2)]
    for number, pair in enumerate(pairs):
        name = GangKey(f"pair{number}", 1)
        cluster.start(Launch(key=name, token="t", spec=pair, workers=2, storage=Path("/s"), tracking_uri=None))
        cluster._settle_heirs()
    assert [gang.on_one_node for gang in cluster.gangs.values()] == [True, True, False]
    cluster.start(launch(name="single"))
    cluster._settle_heirs()
    assert not cluster.gangs["single-1"].on_one_node, "there is nothing to keep together"


def test_idle_gangs_of_one_node_go_for_one_that_is_to_lie_there(cluster: RayCluster):
    cluster.nodes.append({"NodeID": "two", "Resources": {"CPU": float(CPUS)}})
    gangs = [idle(cluster, f"idle{number}-1", 3, seconds=number) for number in (1, 2)]
    cluster.groups["idle2-1"]["bundles_to_node_id"] = {0: "two"}
    waiting = waits(cluster, 1)
    waiting.need, waiting.on_one_node = Need(2, 1, 0), False
    cluster._retire_idle()
    assert [gang.releasing for gang in gangs] == [False, False], "there is room on two nodes"
    waiting.on_one_node = True
    cluster._retire_idle()
    assert [gang.releasing for gang in gangs] == [False, True]


def test_a_launch_gets_its_gang_from_the_thread_alone(cluster: RayCluster):
    """An idle gang that took a launch while the thread heard of the attempt before had its outcome for the new one."""
    lingers = idle(cluster, "lingers-1", 1)
    cluster.start(launch())
    assert lingers.launch is None
    cluster.rounded_at = time.monotonic()
    assert GangKey("new", 1) in cluster.observe().gangs, "it is known from the start"


def test_a_gang_that_is_promised_to_one_is_given_to_no_other(cluster: RayCluster):
    """The name is in the first one's row by then: after a restart, the gang would be taken for its."""
    idle(cluster, "lingers-1", 1)
    first, second = launch(name="first"), launch(name="second")
    assert cluster.gang_for(first.key, first.need) == "lingers-1"
    assert cluster.gang_for(first.key, first.need) == "lingers-1", "asked again, it is the same"
    assert cluster.gang_for(second.key, second.need) == "second-1"
    cluster.start(second)
    cluster._settle_heirs()
    assert (cluster.gangs["lingers-1"].key, cluster.gangs["second-1"].key) == (None, second.key)
    cluster.release(first.key)
    third = launch(name="third")
    assert cluster.gang_for(third.key, third.need) == "lingers-1", "the first wants it no more"


def test_a_launch_waits_for_the_gang_that_it_was_promised_and_gets_a_new_one_where_that_goes(cluster: RayCluster):
    ends = idle(cluster, "ends-1", 1)
    ends.idle_since, ends.letting_go_since = None, time.monotonic()
    new = launch()
    cluster.start(replace(new, gang=cluster.gang_for(new.key, new.need)))
    cluster._settle_heirs()
    assert new.key in cluster.pending_launches, "it has not let go yet"
    ends.releasing = True
    cluster._settle_heirs()
    assert cluster.gangs["new-1"].key == new.key
    assert not cluster.pending_launches


@pytest.mark.parametrize(
    ("rows", "holders"),
    [
        (None, {"warm-1": None, "new-1": None}),
        ({}, {"warm-1": GangKey("warm", 1), "new-1": GangKey("new", 1)}),
        ({"warm-1": GangKey("other", 3)}, {"warm-1": GangKey("other", 3), "new-1": GangKey("new", 1)}),
        ({"warm-1": GangKey("new", 1)}, {"warm-1": GangKey("warm", 1), "new-1": GangKey("new", 1)}),
    ],
    ids=["not read yet", "nobody's", "another's", "given up for a new one"],
)
def test_a_gang_that_cannot_speak_is_whose_the_rows_say(
    cluster: RayCluster, rows: dict[str, GangKey] | None, holders: dict[str, GangKey | None]
):
    cluster.gangs = {name: RayGang(name, cluster.namespace) for name in holders}
    if rows is not None:
        cluster.expect(rows)
    assert {name: cluster._holder(name) for name in holders} == holders


def test_what_was_told_to_the_autoscaler_counts_for_nothing_after_a_gap(
    cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
):
    told: list[list[dict[str, float]]] = []
    monkeypatch.setattr("service.cluster.ray.cluster.request_resources", lambda *, bundles: told.append(bundles))
    cluster.leads_until = time.monotonic() + 60.0

    def tell() -> list[list[dict[str, float]]]:
        told.clear()
        cluster._tell_autoscaler(cluster.term)
        return told

    assert tell() == [], "what the dispatcher has not said yet is not known to be nothing"
    cluster.ask_for([])
    assert tell() == [[]], "a dispatcher that is gone may have asked for much"
    assert tell() == []
    cluster.ask_for([Need(1, 2.0, 0.5)])
    assert tell() == [[{"CPU": 2.0, "GPU": 0.5}]]
    waits(cluster, 1)
    assert tell() == [[{"CPU": 1}, {"CPU": 2.0, "GPU": 0.5}]], "what runs has changed"
    cluster._forget()
    assert tell() == [[{"CPU": 2.0, "GPU": 0.5}]]
