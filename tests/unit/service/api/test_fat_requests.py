"""What is large or wrong in many places costs the server little, and is told in few words."""

import time

import pytest

from cbam_core.pointers import LONGEST_POINTER, MOST_ERROR_ITEMS
from service.experiments import store as store_module
from service.experiments.actions import LONGEST_SPEC_BYTES
from tests.support.specs import spec, spec_dict

WIDE = {f"key{index}": "ü" * 500 for index in range(64)}  # each field for itself is short enough


def test_of_many_wrong_fields_the_first_are_told_and_their_number(http):
    began = time.process_time()
    answer = http.post("/v1/experiments", json=spec_dict() | {f"field{index}": 0 for index in range(3000)})
    assert time.process_time() - began < 5.0, "0.3 s on a quiet machine"
    problem = answer.json()
    assert (answer.status_code, len(problem["errors"])) == (422, MOST_ERROR_ITEMS)
    assert problem["detail"] == "3000 fields cannot be used; these are the first 20"


def test_a_changed_template_is_told_of_in_the_same_way(http):
    overrides = {f"field{index}": 0 for index in range(150)}
    problem = http.post("/v1/experiments", json={"template": "digits-cbam", "overrides": overrides}).json()
    assert problem["errors"][0]["pointer"] == "/overrides/field0"
    assert problem["errors"][MOST_ERROR_ITEMS:] == [{"pointer": "/overrides", "detail": "and 130 more"}]


def test_the_name_of_a_field_is_cut_where_it_is_told(http):
    (error,) = http.post("/v1/experiments", json=spec_dict() | {"x" * 10_000: 0}).json()["errors"]
    assert len(error["pointer"]) == LONGEST_POINTER
    assert error["pointer"].endswith("x…")


def test_a_list_that_is_too_long_is_one_complaint(http):
    schedule = {"type": "multistep", "milestones": [0] * 10_000}
    (error,) = http.post("/v1/experiments", json=spec_dict(train={"schedule": schedule})).json()["errors"]
    assert error == {"pointer": "/train/schedule/milestones", "detail": "at most 100 items; got 10000"}


@pytest.mark.parametrize("path", [["a"] * 1000, ["train", "schedule"] * 9])
def test_an_override_deeper_than_any_spec_is_refused(http, path):
    answer = http.post("/v1/experiments", json={"template": "digits-cbam", "overrides": {".".join(path): 1}})
    assert answer.status_code == 422
    assert "deeper than any field of a spec" in answer.json()["detail"]


def test_a_spec_that_is_too_large_is_refused_wherever_it_comes_from(http):
    def refused(answer):
        return answer.status_code == 422 and f"at most {LONGEST_SPEC_BYTES} are stored" in answer.json()["detail"]

    assert refused(http.post("/v1/experiments", json=spec_dict(tags=WIDE)))
    path = http.post("/v1/experiments", json=spec_dict()).headers["Location"]
    assert refused(http.post(f"{path}/clone", json={"tags": WIDE}))
    assert refused(http.patch(path, json={"tags": WIDE}))
    assert http.get(path).json()["tags"] == {}


def test_one_that_was_stored_before_there_was_a_limit_is_shown_and_starts(http, store, leader):
    row, _ = store.submit(spec(tags=WIDE))
    assert http.get(f"/v1/experiments/{row.id}").json()["tags"] == WIDE
    assert leader.claim(leader.queue()[0], 1).number == 1


def test_a_page_ends_where_its_specs_are_too_much_and_nothing_is_left_out(http, store, monkeypatch):
    for index in range(7):
        store.submit(spec(name=f"n{index}", description="x" * 4000))
    monkeypatch.setattr(store_module, "MOST_PAGE_BYTES", 15_000)
    names, cursor, pages = [], "", 0
    while cursor is not None:
        page = http.get("/v1/experiments", params={"limit": 200} | ({"cursor": cursor} if cursor else {})).json()
        assert 1 <= len(page["items"]) < 4
        names += [item["name"] for item in page["items"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert names == [f"n{index}" for index in reversed(range(7))]
    assert pages > 2
    assert len(http.get("/v1/experiments", params={"spec": False}).json()["items"]) == 3, "twice as many without"
    monkeypatch.setattr(store_module, "MOST_PAGE_BYTES", 1)
    assert len(http.get("/v1/experiments").json()["items"]) == 1, "never an empty page"
