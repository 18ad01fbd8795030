"""Comparisons of runs that were there before: the same rules, never changed by it, and marked as chosen afterwards."""

import pytest

from service.domain.states import TERMINAL, State
from service.domain.studies import StudyState
from tests.support.dispatching import tick
from tests.support.specs import spec, spec_dict
from tests.support.studies.comparing import leave_predictions
from tests.support.studies.running import until

PATH = "/v1/comparisons"
SEEDS = range(8)


@pytest.fixture
def runs(store, dispatcher, cluster) -> dict[str, list[str]]:
    """Plain and CBAM with eight seeds each, which nobody compared while they trained."""
    cluster.export = leave_predictions
    made = {name: [trained(store, name, seed) for seed in SEEDS] for name in ("none", "cbam")}
    finish(store, dispatcher)
    return made


def trained(store, attention: str, seed: int, **changes: object) -> str:
    train = spec_dict()["train"] | {"seed": seed} | changes
    row, _ = store.submit(
        spec(name=f"{attention}-{seed}", model={"backbone": "cifar_resnet20", "attention": attention}, train=train)
    )
    return row.id


def finish(store, dispatcher) -> None:
    for _ in range(300):
        if all(row.state in TERMINAL for row in store.newest_of(["tests"], limit=100)):
            return
        tick(dispatcher)
    pytest.fail("they do not end")


def asked(http, runs, **changes: object):
    body = {"name": "afterwards", "from": {"plain": runs["none"], "cbam": runs["cbam"]}, "margin": 0.03}
    return http.post(PATH, json={key: value for key, value in (body | changes).items() if value is not ...})


def refused(http, runs, **changes: object) -> dict[str, str]:
    answer = asked(http, runs, **changes)
    assert answer.status_code == 422, answer.text
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


def test_they_are_compared_and_marked(http, studies, store, dispatcher, runs):
    before = {one: store.get(one).version for of in runs.values() for one in of}
    view = asked(http, runs).json()
    assert (view["variants"], view["control"], view["seeds"], view["chosen"]) == (["plain", "cbam"], "plain", 8, True)
    until(dispatcher, studies, view["id"], StudyState.SUCCEEDED)
    result = http.get(f"{PATH}/{view['id']}/result").json()
    (pair,) = result["pairs"]
    assert (pair["verdict"], pair["n"]) == ("better", 8)
    assert pair["difference"] == pytest.approx(0.25)
    assert result["not_comparable"] == []
    assert result["warnings"][0].startswith("chosen afterwards: ")
    assert result["seeds"]["values"] == [*SEEDS]
    assert {one: store.get(one).version for of in runs.values() for one in of} == before
    trials = http.get(f"{PATH}/{view['id']}/trials").json()["items"]
    assert [one["experiment_id"] for one in trials] == [*runs["none"], *runs["cbam"]]


def test_in_one_list_they_are_told_apart_by_their_attention(http, studies, dispatcher, runs):
    mixed = [one for pair in zip(runs["cbam"], runs["none"], strict=True) for one in pair]
    view = asked(http, runs, **{"from": mixed, "control": "none"}).json()
    assert (view["variants"], view["control"]) == (["cbam", "none"], "none")
    assert "/control" in refused(http, runs, **{"from": mixed, "control": "plain"})
    assert "all have one attention" in refused(http, runs, **{"from": runs["cbam"]})["/from"]


def test_an_experiment_may_be_in_several_comparisons(http, studies, dispatcher, runs):
    made = [asked(http, runs).json()["id"] for _ in range(2)]
    for study_id in made:
        until(dispatcher, studies, study_id, StudyState.SUCCEEDED)
    first, second = (http.get(f"{PATH}/{one}/result").json() for one in made)
    assert first["pairs"] == second["pairs"]


def test_what_was_left_out_is_listed(http, studies, dispatcher, runs):
    chosen = {"plain": runs["none"][1:], "cbam": runs["cbam"][1:]}
    view = asked(http, runs, **{"from": chosen}).json()
    (line,) = [line for line in http.get(f"{PATH}/{view['id']}/result").json()["warnings"] if "not chosen" in line]
    assert runs["none"][0] in line
    assert runs["cbam"][0] in line


def test_what_cannot_be_compared_is_refused_by_name(http, store, dispatcher, runs):
    plain, cbam = runs["none"], runs["cbam"]
    longer = trained(store, "cbam", 0, epochs=7)
    waiting = trained(store, "cbam", 20)
    dispatcher_stops = store.get(waiting).state
    assert dispatcher_stops == State.QUEUED
    cases = {
        "/from/cbam/0": ({"plain": plain, "cbam": ["nothere", *cbam[1:]]}, "there is no experiment"),
        "/from/cbam/1": ({"plain": plain, "cbam": [cbam[0], cbam[0], *cbam[2:]]}, "is there twice"),
        "/from/cbam/7": ({"plain": plain, "cbam": [*cbam[:7], waiting]}, "is QUEUED"),
        "/from/cbam": ({"plain": plain, "cbam": cbam[:7]}, "no run has the seed 7"),
    }
    for pointer, (chosen, words) in cases.items():
        assert words in refused(http, runs, **{"from": chosen})[pointer]
    finish(store, dispatcher)
    told = refused(http, runs, **{"from": {"plain": plain, "cbam": [longer, *cbam[1:]]}})
    assert any("`train.epochs` is" in words for words in told.values()), told
    both = {"plain": plain[:2], "cbam": [trained(store, "cbam", seed, epochs=7) for seed in (0, 1)]}
    finish(store, dispatcher)
    assert "not comparable: `train.epochs`" in refused(http, runs, **{"from": both})["/from/cbam"]
    assert (
        "nothing would differ"
        in refused(
            http, runs, **{"from": {"plain": plain[:2], "other": [trained_again(store, dispatcher, s) for s in (0, 1)]}}
        )["/from/other"]
    )


def trained_again(store, dispatcher, seed: int) -> str:
    one = trained(store, "none", seed)
    finish(store, dispatcher)
    return one


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"seeds": 9}, "/seeds"),
        ({"seed": 1}, ""),
        ({"probe": True}, ""),
        ({"base": spec_dict()}, ""),
        ({"from": {"plain": ["a1", "a2"]}}, "/from"),
        ({"from": {"plain": ["a1"], "cbam": ["a2"]}}, "/from/plain"),
        ({"from": ...}, "/base"),
        ({"from": ..., "base": spec_dict()}, "/variants"),
    ],
)
def test_what_goes_with_no_chosen_runs_is_refused(http, runs, changes, pointer):
    assert pointer in refused(http, runs, **changes)


def test_nothing_is_wished_for_runs_that_it_does_not_own(http, studies, store, dispatcher, cluster, runs):
    view = asked(http, runs).json()
    until(dispatcher, studies, view["id"], StudyState.SUCCEEDED)
    place = f"{PATH}/{view['id']}"
    assert http.patch(place, json={"seeds": 12}).status_code == 422
    assert http.post(f"{place}/replicate").status_code == 422
    assert http.delete(place, params={"experiments": "true"}).status_code == 422
    assert http.post(f"{PATH}/preview", json={"name": "x", "from": runs}).status_code == 422
    assert http.delete(place).status_code == 204
    assert all(store.get(one).state == State.SUCCEEDED for of in runs.values() for one in of)


def test_a_cancel_ends_it_alone(http, studies, store, dispatcher, runs, monkeypatch):
    """Also while one of its runs trains once more, which is that run's owner's business."""
    monkeypatch.setattr(dispatcher.studies, "_read_runs", lambda: None)  # so that it goes on
    view = asked(http, runs).json()
    tick(dispatcher)
    http.post(f"{PATH}/{view['id']}/cancel")
    until(dispatcher, studies, view["id"], StudyState.CANCELLED)
    assert all(store.get(one).desired == "run" for of in runs.values() for one in of)
