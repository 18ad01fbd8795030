"""One gang on Ray, brought forward by hand: what its ranks are told, and what is concluded of one that was left."""

import time
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path

import pytest
from pydantic import ValidationError
from ray.exceptions import OutOfMemoryError, RayTaskError

from service.cluster.base import GangKey, Launch, Need
from service.cluster.ray.gang import RayGang, verdict
from service.cluster.ray.rendezvous import WorkerAddress, assignment_of
from service.cluster.ray.worker import SILENT_SECONDS, WorkerHandle
from service.domain.states import Liveness, Reason
from tests.support.specs import spec
from workers.protocol.assignment import Assignment
from workers.protocol.code_version import code_fingerprint
from workers.protocol.outcome import Outcome


def launch(workers: int) -> Launch:
    chosen = spec(resources={"workers": workers, "gpus_per_worker": 1.0})
    return Launch(
        key=GangKey("abc", 2), token="t", spec=chosen, workers=workers, storage=Path("/storage"), tracking_uri=None
    )


def test_ranks_of_one_node_see_the_same_gpus_and_each_knows_its_own():
    places = [
        WorkerAddress("one", 5000, ["3"]),
        WorkerAddress("one", 5001, ["1"]),
        WorkerAddress("two", 5002, ["0"]),
        WorkerAddress("two", 5003, ["7"]),
    ]
    told = [assignment_of(launch(4), rank, places) for rank in range(4)]
    assert [one.node_gpus for one in told] == [("1", "3"), ("1", "3"), ("0", "7"), ("0", "7")]
    assert [one.gpu_index for one in told] == [1, 0, 0, 1]
    assert {(one.master_address, one.master_port, one.world_size) for one in told} == {("one", 5000, 4)}
    assert [one.rank for one in told] == [0, 1, 2, 3]


def test_a_gang_without_gpus_is_told_of_none():
    (told,) = [assignment_of(launch(1), 0, [WorkerAddress("one", 5000, [])])]
    assert (told.node_gpus, told.gpu_index) == ((), 0)


def test_an_assignment_crosses_processes_unchanged():
    told = assignment_of(launch(2), 1, [WorkerAddress("one", 5000, ["a"]), WorkerAddress("one", 5001, ["b"])])
    assert Assignment.from_dict(told.to_dict()) == told


def test_a_gang_ended_as_the_rank_says_that_failed_by_itself():
    lost, cause, fine = (
        Outcome("failed", "WORKER_DIED"),
        Outcome("failed", "DATA_ERROR"),
        Outcome("succeeded"),
    )
    assert verdict([lost, cause, lost]) is cause
    assert verdict([fine, lost]) is lost
    assert verdict([fine, Outcome("succeeded", rank=1)]) is fine


def test_a_gang_never_shares_a_gpu():
    assert spec(resources={"gpus_per_worker": 0.25}).resources.gpus_per_worker == 0.25
    with pytest.raises(ValidationError, match="cannot share a GPU"):
        spec(resources={"workers": 2, "gpus_per_worker": 0.5})


def group(state: str) -> dict[str, object]:
    """A row of Ray's table of placement groups."""
    return {"name": "tests/abc-2", "state": state, "bundles": {0: {"CPU": 1.0}}, "bundles_to_node_id": {0: "one"}}


def answered(**answer: object) -> WorkerHandle:
    """A worker that was asked just now."""
    return WorkerHandle(None, question=Future(), asked_at=time.monotonic(), answered=True, **answer)  # type: ignore[arg-type]


def found(holder: GangKey | None = None) -> RayGang:
    """A gang that was left, and whose it is by the rows."""
    gang = RayGang("abc-2", "tests")
    gang.holder = holder or GangKey("abc", 2)
    return gang


def test_a_gang_without_a_place_is_what_the_rows_say_and_takes_its_launch():
    left = found()
    left.advance(group("PENDING"))
    assert (left.known, left.key, left.view.liveness) == (True, GangKey("abc", 2), Liveness.UNKNOWN)
    left.take(launch(4))
    assert left.need == Need(4, 1, 1.0)


@pytest.mark.parametrize(("said", "key"), [(None, GangKey("abc", 2)), (GangKey("def", 7), GangKey("def", 7))])
def test_a_gang_that_was_left_and_lost_a_node_is_known_and_dead(said: GangKey | None, key: GangKey):
    left = found()
    left.ranks = [WorkerHandle(None), answered(key=said)]
    left.advance(group("RESCHEDULING"))
    assert (left.known, left.key) == (True, key)
    assert (left.view.liveness, left.view.reason) == (Liveness.DEAD, Reason.NODE_LOST)


def test_a_dead_worker_is_not_waited_for_to_say_what_it_did():
    left = found()
    left.ranks = [answered(key=GangKey("def", 7)), WorkerHandle(None, died="killed")]
    left.advance(group("CREATED"))
    assert (left.known, left.key, left.view.liveness) == (True, GangKey("def", 7), Liveness.DEAD)


@pytest.mark.parametrize("asked_ago", [0.0, SILENT_SECONDS + 1.0])
def test_a_silent_gang_is_in_the_end_what_the_rows_say_and_nothing_is_concluded_of_it(asked_ago: float):
    """Not even from workers that were asked just now: they have not said how far they are."""
    left = found(GangKey("def", 7))
    left.ranks = [WorkerHandle(None, question=Future(), asked_at=time.monotonic() - asked_ago)]
    left.advance(group("CREATED"))
    assert not left.known
    left.found_at -= SILENT_SECONDS
    left.advance(group("CREATED"))
    assert (left.known, left.key, left.view.liveness) == (True, GangKey("def", 7), Liveness.UNKNOWN)


def lending(rank: WorkerHandle, *, idle: bool) -> RayGang:
    """A gang that waits for its next attempt, or for its ranks to end after the record of a success."""
    gang = RayGang("abc-2", "tests", launch=launch(1))
    gang.ranks = [rank]
    if idle:
        gang.key, gang.launch, gang.idle_since = None, None, time.monotonic()
    else:
        gang._begun, gang.letting_go_since = True, time.monotonic()
    return gang


@pytest.mark.parametrize("idle", [True, False])
@pytest.mark.parametrize(
    ("rank", "state"),
    [
        (answered(), "RESCHEDULING"),
        (answered(outcome=Outcome("succeeded")), "RESCHEDULING"),
        (answered(died="killed"), "CREATED"),
        (answered(died="killed", outcome=Outcome("succeeded")), "CREATED"),
    ],
)
def test_who_dies_after_its_attempt_lends_its_place_to_nobody(rank: WorkerHandle, state: str, idle: bool):
    gang = lending(rank, idle=idle)
    assert gang.lends_its_place
    gang.advance(group(state))
    assert (gang.releasing, gang.lends_its_place, gang.idle) == (True, False, False)


def test_an_idle_gang_that_has_fallen_silent_is_given_to_nobody():
    long_ago = time.monotonic() - SILENT_SECONDS - 1
    slow, starting = (
        WorkerHandle(None, question=Future(), asked_at=long_ago, answered=spoke) for spoke in (True, False)
    )
    for rank, goes in ((answered(), False), (slow, True), (starting, False)):
        gang = lending(rank, idle=True)
        gang.advance(group("CREATED"))
        assert gang.releasing == goes
    ending = lending(slow, idle=False)
    ending.advance(group("CREATED"))
    assert not ending.releasing, "it may still have something to do for its attempt"


def test_an_attempt_that_takes_an_idle_gang_does_not_take_its_end():
    gang = lending(answered(), idle=True)
    gang.letting_go_since = time.monotonic() - 1000  # it was told so twice, the second time just as it became idle
    gang.take(launch(1))
    gang._let_go()
    assert (gang.letting_go_since, gang.releasing) == (None, False)


@pytest.mark.parametrize("state", ["PENDING", "RESCHEDULING"])
def test_nothing_is_known_of_a_gang_that_cannot_speak_before_the_rows_are_read(state: str):
    left = RayGang("abc-2", "tests")
    left.found_at -= SILENT_SECONDS
    left.advance(group(state))
    assert not left.known
    left.holder = GangKey("def", 7)
    left.advance(group(state))
    assert (left.known, left.key) == (True, GangKey("def", 7))


@pytest.mark.parametrize(
    ("error", "is_dead"), [(OutOfMemoryError("of the node"), True), (RayTaskError("news", "", ValueError()), False)]
)
def test_a_question_that_fails_at_once_is_not_asked_again_at_once(error: Exception, is_dead: bool):
    answer: Future[object] = Future()
    answer.set_exception(error)
    rank = WorkerHandle(None, question=answer, answered=True, tells_news=True)
    with nullcontext() if is_dead else pytest.raises(RayTaskError):
        rank.poll(60.0)
    assert (rank.died is not None) == is_dead
    asked_at = rank.asked_at
    rank.poll(60.0)
    assert rank.asked_at == asked_at


@pytest.mark.parametrize(("age", "seconds"), [(0, 0.5), (20, 1.0), (3600, 2.0)])
def test_who_has_trained_for_long_is_asked_less_often(age: float, seconds: float):
    gang = RayGang("abc-1", "tests")
    gang.begun_at -= age
    assert gang.news_seconds() == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize("fit", [True, False])
def test_a_gang_that_was_left_after_a_success_lingers_only_if_it_is_fit(fit: bool):
    left = RayGang("abc-2", "tests")
    done = {"key": left.key, "outcome": Outcome("succeeded"), "code": code_fingerprint()}
    left.ranks = [answered(**done), answered(**done, is_fit=fit)]
    left.advance(group("CREATED"))
    assert (left.known, left.idle, left.releasing) == (True, fit, not fit)


@pytest.mark.parametrize("idle", [True, False])
def test_a_worker_that_cannot_load_the_training_is_given_to_nobody(idle: bool):
    """While it trains nothing is said of it yet: what it is fit for shows at its end."""
    gang = lending(answered(is_fit=False), idle=idle)
    gang.advance(group("CREATED"))
    assert gang.releasing is idle


def left_with(code: str | None, outcome: Outcome | None = None) -> RayGang:
    """A gang that was left, whose one worker answers."""
    gang = found()
    gang.ranks = [answered(code=code, outcome=outcome)]
    return gang


@pytest.mark.parametrize(("code", "stays"), [(code_fingerprint(), True), ("another", False), (None, False)])
def test_of_those_that_were_left_only_who_runs_our_code_waits_for_an_attempt(code: str | None, stays: bool):
    """An older one may not understand it, and would train with what there was before the upgrade."""
    gang = left_with(code)
    gang.advance(group("CREATED"))
    assert (gang.known, gang.idle, gang.lends_its_place) == (True, stays, stays)


def test_what_our_own_gangs_run_is_what_any_other_would():
    assert lending(answered(code="of their image"), idle=True).runs_our_code
