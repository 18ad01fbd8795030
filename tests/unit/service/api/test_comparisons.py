"""Comparisons over HTTP: what is accepted, what is refused and where the pointer points, and what may be asked for."""

import pytest
from sqlalchemy import text

from service.cluster.base import Node
from service.cluster.in_memory import InMemoryCluster
from service.comparisons.submission import base_spec, variant_specs
from service.dispatcher.dispatcher import Dispatcher
from service.domain.states import State
from service.domain.studies import StudyState, seed_of
from service.schemas.comparisons import ComparisonSpec
from tests.support.specs import spec_dict
from tests.support.studies.comparing import leave_predictions
from tests.support.studies.rows import BAD, GOOD, begun

PATH = "/v1/comparisons"


def body(**changes: object) -> dict[str, object]:
    fields: dict[str, object] = {
        "name": "does cbam help",
        "base": spec_dict(),
        "variants": {"plain": {"model.attention": "none"}, "cbam": {}},
        "seeds": 3,
        "probe": False,
    }
    return {key: value for key, value in (fields | changes).items() if value is not ...}


def refused(http, **changes: object) -> dict[str, str]:
    answer = http.post(PATH, json=body(**changes))
    assert answer.status_code == 422, answer.text
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


def test_a_comparison_is_accepted_and_shown(http):
    answer = http.post(PATH, json=body(margin=0.01, description="table 4"))
    assert answer.status_code == 201
    view = answer.json()
    assert answer.headers["Location"] == view["links"]["self"] == f"{PATH}/{view['id']}"
    assert (view["state"], view["control"], view["variants"]) == ("ACTIVE", "plain", ["plain", "cbam"])
    assert view["trials"]["planned"] == 6
    assert view["spec"]["margin"] == 0.01
    shown = http.get(view["links"]["self"])
    assert shown.json() == view
    assert shown.headers["ETag"] == '"1"'
    (listed,) = http.get(PATH).json()["items"]
    assert listed == view | {"spec": {}}
    assert http.get(view["links"]["trials"]).json() == {"items": [], "next_cursor": None}
    (decided,) = http.get(view["links"]["decisions"]).json()["items"]
    assert (decided["to_state"], decided["by"]) == ("ACTIVE", "local")


def test_a_template_with_overrides_is_a_base_too(http):
    base = {"template": "digits-cbam", "overrides": {"train.epochs": 2}}
    assert http.post(PATH, json=body(base=base)).status_code == 201
    assert "/base/template" in refused(http, base={"template": "nonsense"})
    assert "/base/overrides/train/epochs" in refused(http, base=base | {"overrides": {"train.epochs": 0}})


def test_the_same_key_gives_the_same_comparison(http):
    headers = {"Idempotency-Key": "monday"}
    first = http.post(PATH, json=body(), headers=headers)
    again = http.post(PATH, json=body(), headers=headers)
    assert first.json() == again.json()
    assert http.post(PATH, json=body(seeds=4), headers=headers).status_code == 422
    assert http.post("/v1/experiments", json=spec_dict(), headers=headers).status_code == 422, "it is another body"
    assert len(http.get(PATH).json()["items"]) == 1


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"variants": {}}, "/variants"),
        ({"variants": {"plain": {}}}, "/variants"),
        ({"variants": {"a/b": {}, "cbam": {}}}, "/variants/a~1b"),
        ({"seeds": 1}, "/seeds"),
        ({"seeds": 10_000}, "/seeds"),
        ({"seeds": {"pilot": 8, "most": 4, "stop": {"rule": "precision", "half_width": 0.01}}}, "/seeds"),
        ({"seeds": {"pilot": 8}}, "/seeds/stop"),
        ({"seeds": {"stop": {"rule": "precision", "half_width": 1e-200}}}, "/seeds/stop/half_width"),
        ({"margin": 0}, "/margin"),
        ({"metric": "test/loss"}, "/metric"),
        ({"nonsense": 1}, "/nonsense"),
        ({"control": "other"}, ""),
        ({"weights": "best", "metric": "val/top1"}, ""),
        ({"base": ...}, "/base"),
        ({"base": spec_dict(nonsense=1)}, "/base/nonsense"),
        ({"base": spec_dict(tags={"variant": "mine"})}, "/base/tags/variant"),
        ({"base": spec_dict(tags={f"tag-{number}": "" for number in range(63)})}, "/base/tags"),
        ({"base": spec_dict(resources={"workers": {"min": 1, "max": 2}})}, "/base/resources/workers"),
        ({"base": spec_dict(data={"dataset": "digits", "image_size": 8, "val": "folder"})}, "/metric"),
        (
            {"base": spec_dict(model={"backbone": "timm:nonsense", "attention": {"type": "cbam"}})},
            "/base/model/backbone",
        ),
        ({"variants": {"plain": {"model.attentoin": "none"}, "cbam": {}}}, "/variants/plain/model/attentoin"),
        ({"variants": {"plain": {"train.epochs": 5}, "cbam": {}}}, "/variants/plain"),
        ({"variants": {"plain": {"train.seed": 5}, "cbam": {}}}, "/variants/plain"),
        ({"variants": {"plain": {"data.image_size": 32}, "cbam": {}}}, "/variants/plain"),
        ({"variants": {"plain": {}, "cbam": {}}}, "/variants/cbam"),
        ({"description": "a\u202eb"}, "/description"),
    ],
)
def test_what_is_wrong_is_told_with_its_pointer(http, changes, pointer):
    assert pointer in refused(http, **changes)


def test_what_is_held_equal_is_named(http):
    found = refused(http, variants={"plain": {"train.epochs": 5, "name": "other"}, "cbam": {}})
    assert "`name`" in found["/variants/plain"] or "`train.epochs`" in found["/variants/plain"]


def test_the_recipe_and_augmentation_may_differ():
    variants = {"plain": {}, "mixed": {"data.augment": {"mixup": 0.2}, "train.optimizer": {"type": "sgd", "lr": 0.01}}}
    spec = ComparisonSpec.model_validate(body(variants=variants))
    plain, mixed = variant_specs(spec, base_spec(spec)).values()
    assert plain.data.augment != mixed.data.augment
    assert mixed.train.optimizer.lr == 0.01


def test_only_actions_of_its_state_are_taken(http):
    place = http.post(PATH, json=body()).json()["links"]["self"]
    for action in ("pause", "pause", "cancel", "cancel"):
        assert http.post(f"{place}/{action}").status_code == 202
    answer = http.post(f"{place}/retry")
    assert answer.status_code == 409
    assert answer.json()["legal"] == ["cancel", "pause", "add-seeds"]
    assert "a study that is ACTIVE" in answer.json()["detail"]
    assert http.delete(place).status_code == 409
    assert http.post(f"{PATH}/nonsense/pause").status_code == 404


def test_seeds_are_added_and_never_taken_away(http):
    place = http.post(PATH, json=body()).json()["links"]["self"]
    more = http.patch(place, json={"seeds": 5}, headers={"If-Match": '"1"'})
    assert (more.status_code, more.json()["seeds"], more.json()["seeds_added"]) == (200, 5, False)
    assert http.patch(place, json={"seeds": 6}, headers={"If-Match": '"1"'}).status_code == 412
    assert http.patch(place, json={"seeds": 4}).status_code == 422
    assert http.patch(place, json={}).status_code == 422
    rule = {"pilot": 8, "most": 20, "stop": {"rule": "precision", "half_width": 0.01}}
    other = http.post(PATH, json=body(seeds=rule)).json()["links"]["self"]
    answer = http.patch(other, json={"seeds": 12})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/seeds")


def test_what_cannot_be_is_a_conflict_that_says_why(http):
    studies = http.app.state.studies
    done = begun(studies, [GOOD, GOOD], state=StudyState.SUCCEEDED)
    answer = http.post(f"{PATH}/{done.id}/retry")
    assert (answer.status_code, answer.json()["legal"]) == (409, ["add-seeds", "delete"])
    assert "nothing failed" in answer.json()["detail"]
    still = begun(studies, [GOOD, (State.PAUSED, None)], state=StudyState.SUCCEEDED)
    answer = http.delete(f"{PATH}/{still.id}", params={"experiments": True})
    assert (answer.status_code, answer.json()["legal"]) == (409, ["cancel", "resume"])
    assert studies.trials(still.id)[1].trial.experiment_id in answer.json()["detail"]


def test_a_list_is_narrowed_and_paged(http):
    for number in range(5):
        http.post(PATH, json=body(name=f"comparison {number}"))
    first = http.get(PATH, params={"limit": 2}).json()
    second = http.get(PATH, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    third = http.get(PATH, params={"limit": 2, "cursor": second["next_cursor"]}).json()
    names = [item["name"] for page in (first, second, third) for item in page["items"]]
    assert names == [f"comparison {number}" for number in (4, 3, 2, 1, 0)]
    assert third["next_cursor"] is None
    assert http.get(PATH, params={"state": "PAUSED"}).json()["items"] == []
    assert len(http.get(PATH, params={"state": StudyState.ACTIVE, "owner": "local"}).json()["items"]) == 5
    assert http.get(PATH, params={"cursor": "nonsense"}).status_code == 422
    assert http.get(PATH, params={"stat": "ACTIVE"}).status_code == 422


def test_runs_and_decisions_come_in_pages(http):
    studies = http.app.state.studies
    links = http.get(f"{PATH}/{begun(studies, [GOOD, BAD, GOOD, GOOD, BAD]).id}").json()["links"]
    for seeds in (4, 5, 6):
        http.patch(links["self"], json={"seeds": seeds})
    for place, one, all_of_them in ((links["trials"], "number", 5), (links["decisions"], "seq", 4)):
        whole = http.get(place).json()
        assert (len(whole["items"]), whole["next_cursor"]) == (all_of_them, None)
        first = http.get(place, params={"limit": 2}).json()
        second = http.get(place, params={"limit": 2, "cursor": first["next_cursor"]}).json()
        third = http.get(place, params={"limit": 2, "cursor": second["next_cursor"] or 10**6}).json()
        assert [*first["items"], *second["items"], *third["items"]] == whole["items"]
        assert third["next_cursor"] is None
        assert [row[one] for row in whole["items"]] == sorted(row[one] for row in whole["items"])
        for wrong in ({"limit": 201}, {"limit": 0}, {"cursor": -1}, {"cursor": 2**63}, {"cursor": "x"}):
            assert http.get(place, params=wrong).status_code == 422, wrong


@pytest.mark.parametrize("spec", ["{}", "5", "[]", "null", '{"variants": [], "control": 5, "seeds": "x"}'])
def test_a_damaged_row_holds_up_no_list(http, spec):
    studies = http.app.state.studies
    whole, broken = begun(studies, [GOOD]), begun(studies, [GOOD])
    with studies.database.writing() as session:
        session.execute(text("UPDATE studies SET spec = :spec WHERE id = :id"), {"id": broken.id, "spec": spec})
    listed = http.get(PATH)
    assert (listed.status_code, [item["id"] for item in listed.json()["items"]]) == (200, [broken.id, whole.id])
    shown = listed.json()["items"][0]
    assert (shown["variants"], shown["control"], shown["metric"], shown["trials"]["succeeded"]) == ([], "", "", 1)
    assert http.get(f"{PATH}/{broken.id}").json() | {"spec": {}} == shown
    (run,) = http.get(f"{PATH}/{broken.id}/trials").json()["items"]
    assert run["variant"] == "plain"
    assert http.patch(f"{PATH}/{broken.id}", json={"seeds": 9}).status_code == 200
    assert http.post(f"{PATH}/{broken.id}/cancel").status_code == 202


def test_a_preview_says_what_so_many_seeds_can_show(http):
    answer = http.post(f"{PATH}/preview", json=body(seeds=8, margin=0.005, seed=3))
    assert answer.status_code == 200, answer.text
    view = answer.json()
    assert (view["runs"], view["first_runs"], view["epochs"]) == (16, 16, 16)
    assert view["seeds"] == [seed_of(3, block) for block in range(8)]
    by_spread = {row["sd"]: row for row in view["power"]}
    assert by_spread[0.005]["seeds_for_margin"] == 18, "0.5 points where a seed's sd is 0.5: measurement of the design"
    assert by_spread[0.003]["seeds_for_margin"] == 8
    assert by_spread[0.003]["smallest_difference"] == pytest.approx(0.005, rel=0.1)
    assert view["variants"]["plain"]["parameters"] < view["variants"]["cbam"]["parameters"]
    assert not http.get(PATH).json()["items"]
    assert (view["probes"], view["probe_seconds"]) == (0, 0)
    view = http.post(f"{PATH}/preview", json=body(seeds=8, probe=True)).json()
    assert (view["runs"], view["probes"], view["probe_seconds"]) == (16, 1, 32), "8 rounds of 2 s for each of two"


def test_a_probe_is_asked_for_unless_that_is_refused(http):
    asked = {name: value for name, value in body(seeds=3).items() if name != "probe"}
    assert http.post(PATH, json=asked).json()["trials"]["planned"] == 7
    assert http.post(PATH, json=body(seeds=3, probe=False)).json()["trials"]["planned"] == 6
    assert http.post(PATH, json=body(seeds=3, probe="off")).status_code == 422


def test_a_list_of_experiments_is_narrowed_to_those_of_a_comparison(http):
    http.post("/v1/experiments", json=spec_dict())
    assert http.get("/v1/experiments", params={"study": "abc"}).json()["items"] == []
    assert http.get("/v1/experiments").json()["items"][0]["study_id"] is None


def test_a_result_is_there_from_the_first_moment(http):
    place = http.post(PATH, json=body()).json()["links"]
    view = http.get(place["result"]).json()
    assert (view["name"], view["running"], view["control"]) == ("does cbam help", True, "plain")
    assert [pair["verdict"] for pair in view["pairs"]] == ["running"]
    page = http.get(place["report"])
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src" not in page.headers["content-security-policy"]
    assert "<h1>" in page.text
    text = http.get(place["report"], params={"format": "markdown"})
    assert text.text.startswith("# does cbam help")
    drawn = http.get(place["figure"])
    assert drawn.headers["content-type"] == "image/svg+xml"
    assert drawn.text.startswith("<svg")
    assert http.get(place["report"], params={"format": "pdf"}).status_code == 422


def test_its_seeds_are_paired_and_judged(http, settings, clock):
    """Eight seeds, cbam ten images ahead in each: better on these 40 images and on others."""
    place = http.post(PATH, json=body(seeds=8)).json()["links"]
    cluster = InMemoryCluster(nodes=(Node("node-1", 8.0, 0.0, 8.0, 0.0),), steps_per_look=5, export=leave_predictions)
    dispatcher = Dispatcher(http.app.state.store.database, cluster, settings, clock=clock)
    for _ in range(200):
        dispatcher.tick()
        clock.advance(0.5)
        if dispatcher.studies.under_way is not None:
            dispatcher.studies.under_way.exception()
        if http.get(place["self"]).json()["state"] == "SUCCEEDED":
            break
    view = http.get(place["result"]).json()
    (pair,) = view["pairs"]
    assert (pair["verdict"], pair["scope"], pair["n"]) == ("better", "new images", 8)
    assert pair["difference"] == pytest.approx(0.25)
    assert not view["not_comparable"]
    assert http.get(place["trials"]).json()["items"][0]["images"] == 40
    assert "better" in http.get(place["report"], params={"format": "markdown"}).text
