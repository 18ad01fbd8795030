"""Sweeps over HTTP: what is accepted, what is refused and where the pointer points, and what may be asked for."""

import pytest

from service.cluster.base import Node
from service.cluster.in_memory import InMemoryCluster
from service.dispatcher.dispatcher import Dispatcher
from service.domain.studies import StudyState
from service.sweeps.submission import find_spec
from tests.support.dispatching import tick
from tests.support.specs import spec_dict
from tests.support.studies.sweeping import GRID, SEARCH, report, sweep_dict

PATH = "/v1/sweeps"
NUMBERS = {"train.optimizer.lr": {"log": [0.01, 1]}, "train.optimizer.momentum": {"uniform": [0, 0.9]}}


@pytest.fixture
def cluster() -> InMemoryCluster:
    return InMemoryCluster(nodes=(Node("node-1", 4.0, 0.0, 4.0, 0.0),), steps_per_look=5, metrics=report())


def refused(http, **changes: object) -> dict[str, str]:
    answer = http.post(PATH, json=sweep_dict(**changes))
    assert answer.status_code == 422, answer.text
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


def made(http, **changes: object) -> dict:
    answer = http.post(PATH, json=sweep_dict(**changes))
    assert answer.status_code == 201, answer.text
    return answer.json()


def finish(http, dispatcher, view: dict, state: str = "SUCCEEDED") -> dict:
    for _ in range(200):
        view = http.get(view["links"]["self"]).json()
        if view["state"] == state:
            return view
        tick(dispatcher)
    pytest.fail(f"still {view}")


def test_a_sweep_is_accepted_and_shown(http):
    answer = http.post(PATH, json=sweep_dict(description="table 4"))
    assert answer.status_code == 201
    view = answer.json()
    assert answer.headers["Location"] == view["links"]["self"] == f"{PATH}/{view['id']}"
    assert (view["state"], view["method"], view["metric"], view["mode"]) == ("ACTIVE", "random", "val/top1", "max")
    assert view["limits"] == {"trials": 6, "concurrent": 2, "failed": 5, "hours": None}
    assert view["trials"]["planned"] == 6
    assert view["actions"] == ["cancel", "pause", "extend"]
    shown = http.get(view["links"]["self"])
    assert shown.json() == view
    assert shown.headers["ETag"] == '"1"'
    (listed,) = http.get(PATH).json()["items"]
    assert listed == view | {"spec": {}}
    assert http.get(view["links"]["trials"]).json() == {"items": [], "next_cursor": None}
    assert http.get(view["links"]["result"]).json()["best"] is None
    (decided,) = http.get(view["links"]["decisions"]).json()["items"]
    assert (decided["to_state"], decided["by"]) == ("ACTIVE", "local")


def test_a_sweep_is_no_comparison(http):
    view = made(http)
    assert http.get(f"/v1/comparisons/{view['id']}").status_code == 404
    assert http.get("/v1/comparisons").json()["items"] == []


def test_a_template_with_overrides_is_a_base_too(http):
    base = {"template": "digits-cbam", "overrides": {"train.epochs": 2}}
    made(http, base=base)
    assert "/base/template" in refused(http, base={"template": "nonsense"})
    assert "/base/overrides/train/epochs" in refused(http, base=base | {"overrides": {"train.epochs": 0}})


def test_the_same_key_gives_the_same_sweep(http):
    headers = {"Idempotency-Key": "monday"}
    first = http.post(PATH, json=sweep_dict(), headers=headers)
    assert http.post(PATH, json=sweep_dict(), headers=headers).json() == first.json()
    assert http.post(PATH, json=sweep_dict(name="other"), headers=headers).status_code == 422
    assert len(http.get(PATH).json()["items"]) == 1


LR = "train.optimizer.lr"


@pytest.mark.parametrize(
    ("changes", "pointer", "words"),
    [
        ({"limits": {"trials": 0}}, "/limits/trials", "greater than or equal to 1"),
        ({"limits": {"trials": 10_000}}, "/limits/trials", "less than or equal to 1000"),
        ({"limits": {}}, "/limits/trials", "say how many trials"),
        ({"limits": {"trials": 5, "concurrent": 0}}, "/limits/concurrent", "greater"),
        ({"search": {}}, "/search", "at least 1"),
        ({"search": {LR: {}}}, f"/search/{LR}", "give {log: [low, high]}"),
        ({"search": {LR: {"log": [1, 0.1]}}}, f"/search/{LR}", "no range"),
        ({"search": {LR: {"log": [0, 1]}}}, f"/search/{LR}", "above 0"),
        ({"search": {LR: {"log": [0.1, 1], "step": 3}}}, f"/search/{LR}/step", "no such field"),
        ({"search": {"train.optimizer.lrr": {"log": [0.1, 1]}}}, "/search/train.optimizer.lrr", "did you mean"),
        ({"search": {"train.seed": {"int": [0, 9]}}}, "/search/train.seed", "seeds cannot be searched over"),
        ({"search": {"train.seeds.order": {"int": [0, 9]}}}, "/search/train.seeds.order", "seeds cannot"),
        ({"search": {"data.val.seed": {"int": [0, 9]}}}, "/search/data.val.seed", "the same images"),
        ({"search": {"data.dataset": {"choice": ["digits"]}}}, "/search/data.dataset", "the same images"),
        ({"search": {"test.top1": {"choice": [1]}}}, "/search/test.top1", "test"),
        ({"search": {"priority": {"int": [1, 2]}}}, "/search/priority", "no part of what is trained"),
        ({"search": {"train": {"choice": [{"seed": 1}]}}}, "/search/train", "name the fields"),
        ({"search": {LR: {"choice": [0.1, 0.2, 0.1]}}}, f"/search/{LR}/choice/2", "twice"),
        ({"search": {LR: {"choice": [1, 1.0]}}}, f"/search/{LR}/choice/1", "twice"),
        ({"search": {LR: {"uniform": [-1, 1]}}}, f"/search/{LR}", "-1"),
        ({"search": {"model.attention.type": {"choice": ["se", "sse"]}}}, "/search/model.attention.type", "sse"),
        (
            {"search": {"model.attention": {"choice": ["se"]}, "model.attention.type": {"choice": ["cbam"]}}},
            "/search/model.attention.type",
            "holds it",
        ),
        (
            {"search": {LR: {"log": [0.1, 1], "when": {"model.attention.type": ["se"]}}}},
            f"/search/{LR}/when/model.attention.type",
            "not searched over",
        ),
        (
            {"search": SEARCH | {LR: {"log": [0.1, 1], "when": {"model.attention.type": ["ses"]}}}},
            f"/search/{LR}/when/model.attention.type/0",
            "none of the choices",
        ),
        (
            {"search": NUMBERS | {LR: {"log": [0.1, 1], "when": {"train.optimizer.momentum": [0.1]}}}},
            f"/search/{LR}/when/train.optimizer.momentum",
            "has choices",
        ),
        (
            {
                "search": {
                    "model.attention.type": {"choice": ["none", "se"]},
                    "model.attention.reduction": {"int": [2, 8]},
                }
            },
            "/search/model.attention.reduction",
            "no such field of none",
        ),
        ({"metric": "test/top1"}, "/metric", "fitted to test"),
        ({"metric": "val/loss", "mode": "max"}, "", "best at its minimum"),
        ({"early": {"type": "asha"}}, "/early", "no such field"),
        ({"method": "grid", "limits": {}}, f"/search/{LR}", "a grid needs to know how many"),
        ({"method": "grid", "search": GRID, "limits": {"trials": 25}}, "/limits/trials", "the grid has 24 points"),
        ({"search": {LR: {"log": [0.1, 1], "points": 3}}}, f"/search/{LR}/points", "only the method grid"),
        (
            {"method": "grid", "limits": {}, "search": {"model.attention.reduction": {"int": [2, 4], "points": 9}}},
            "/search/model.attention.reduction/points",
            "only 3 such",
        ),
        (
            {
                "method": "grid",
                "limits": {},
                "search": {name: where | {"points": 40} for name, where in NUMBERS.items()},
            },
            "/search",
            "more than 1000 points",
        ),
        ({"method": "cmaes", "search": NUMBERS | {"train.optimizer.nesterov": {"choice": [True, False]}}},
         "/search/train.optimizer.nesterov", "not over choices"),
        ({"method": "cmaes", "search": {LR: NUMBERS[LR]}}, "/search", "there is one"),
        ({"method": "genetic"}, "/method", "does not match"),
        ({"base": spec_dict(tags={"sweep": "mine"})}, "/base/tags/sweep", "leave it out"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_its_place(http, changes, pointer, words):
    found = refused(http, **changes)
    assert pointer in found, found
    assert words in found[pointer]


@pytest.mark.parametrize("package", ["cmaes", "optuna"])
def test_a_sampler_whose_package_is_missing_is_refused(http, monkeypatch, package):
    monkeypatch.setattr(
        "service.sweeps.submission.find_spec", lambda name: None if name == package else find_spec(name)
    )
    assert f"needs the package {package}" in refused(http, method="cmaes", search=NUMBERS)["/method"]


def test_a_sweep_goes_on_to_its_best(http, settings, cluster, clock):
    database = http.app.state.store.database
    dispatcher = Dispatcher(database, cluster, settings, clock=clock)
    view = finish(http, dispatcher, made(http))
    assert (view["trials"]["succeeded"], view["actions"]) == (6, ["retry", "extend", "delete"])
    trials = http.get(view["links"]["trials"], params={"limit": 4}).json()
    assert ([one["number"] for one in trials["items"]], trials["next_cursor"]) == ([0, 1, 2, 3], "4")
    result = http.get(view["links"]["result"]).json()
    values = [one["value"] for one in result["trials"]]
    assert values == sorted(values, reverse=True)
    assert result["best"] == result["trials"][0]
    assert set(result["best"]["params"]) <= set(result["fields"]) == set(SEARCH)
    assert "partly luck" in result["warnings"][0]
    assert http.get(f"/v1/experiments?study={view['id']}").json()["items"]
    changed = http.patch(view["links"]["self"], json={"limits": {"trials": 8}}, headers={"If-Match": '"1"'})
    assert changed.status_code == 412
    changed = http.patch(view["links"]["self"], json={"limits": {"trials": 8, "hours": 5.0}})
    assert (changed.status_code, changed.json()["state"]) == (200, "ACTIVE")
    assert changed.json()["limits"] == {"trials": 8, "concurrent": 2, "failed": 5, "hours": 5.0}
    assert finish(http, dispatcher, view)["trials"]["succeeded"] == 8
    fewer = http.patch(view["links"]["self"], json={"limits": {"trials": 3}})
    assert (fewer.status_code, fewer.json()["errors"][0]["pointer"]) == (422, "/limits/trials")
    assert http.post(f"{view['links']['self']}/retry").status_code == 409
    assert http.delete(view["links"]["self"], params={"experiments": True}).status_code == 204
    assert http.get("/v1/experiments").json()["items"] == []
    dispatcher.studies.close()


def test_a_failed_trial_ranks_behind_those_with_a_value(http, settings, cluster, clock):
    cluster.metrics = report(lambda launch: float("nan") if launch.spec.name.endswith("0") else 0.7)
    dispatcher = Dispatcher(http.app.state.store.database, cluster, settings, clock=clock)
    view = finish(http, dispatcher, made(http))
    result = http.get(view["links"]["result"]).json()
    assert [(one["number"], one["outcome"]) for one in result["trials"]][-1] == (0, "LOSS_NOT_FINITE")
    assert result["best"]["number"] == 1, "the first of those that are as good"
    dispatcher.studies.close()


@pytest.mark.parametrize(("action", "state"), [("cancel", StudyState.CANCELLED), ("pause", StudyState.PAUSED)])
def test_it_may_be_asked_to_end_and_to_wait(http, settings, cluster, clock, action, state):
    cluster.steps_per_look = 1
    dispatcher = Dispatcher(http.app.state.store.database, cluster, settings, clock=clock)
    view = made(http)
    tick(dispatcher, 3)
    answer = http.post(f"{view['links']['self']}/{action}")
    assert (answer.status_code, answer.json()["desired"]) == (202, action)
    finish(http, dispatcher, view, state)
    dispatcher.studies.close()


def test_a_preview_stores_nothing(http):
    answer = http.post(f"{PATH}/preview", json=sweep_dict())
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert (shown["trials"], shown["epochs"], len(shown["examples"])) == (6, 6, 5)
    assert shown["first"]["parameters"] > 0
    assert http.get(PATH).json()["items"] == []
