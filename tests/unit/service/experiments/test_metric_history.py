"""The history of metrics, from the journal on shared storage."""

import json
import math

import pytest

from service.experiments.metric_history import Curve, read_curves
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder
from workers.tracking.journal import Journal


@pytest.fixture
def path(http):
    return http.post("/v1/experiments", json=spec_dict()).headers["Location"]


@pytest.fixture
def journal(settings, path):
    journal = Journal(ExperimentFolder(settings.storage_root, path.rsplit("/", 1)[-1]).journal)
    yield journal
    journal.close()


def test_an_experiment_that_has_measured_nothing_has_no_curves(http, path):
    assert http.get(f"{path}/metrics").json() == {"items": []}


def test_curves_are_shown_by_name_step_by_step(http, path, journal):
    journal.append({"params": {"metrics": "none"}})
    for step in range(1, 6):
        journal.append_metrics(step, {"train/loss": 1 / step} | ({"val/top1": 0.5} if step == 5 else {}), 1000 * step)
    loss, top1 = http.get(f"{path}/metrics").json()["items"]
    assert (loss["name"], loss["steps"], loss["times"][0]) == ("train/loss", [1, 2, 3, 4, 5], 1000)
    assert loss["values"] == [1 / step for step in range(1, 6)]
    assert (top1["steps"], top1["values"]) == ([5], [0.5])
    (only,) = http.get(f"{path}/metrics?name=val/top1&name=nothing").json()["items"]
    assert only == top1
    (tail,) = http.get(f"{path}/metrics?name=train/loss&after_step=3").json()["items"]
    assert tail["steps"] == [4, 5]


def test_a_value_that_is_not_finite_is_shown_as_unknown(http, path, journal):
    journal.append_metrics(1, {"a": math.nan, "b": math.inf}, 0)
    assert [item["values"] for item in http.get(f"{path}/metrics").json()["items"]] == [[None], [None]]


def test_a_line_that_is_still_being_written_does_not_count(settings, path, journal, http):
    journal.append_metrics(1, {"a": 1.0}, 0)
    with ExperimentFolder(settings.storage_root, path.rsplit("/", 1)[-1]).journal.open("a") as file:
        file.write(json.dumps({"metrics": {"a": 2.0}, "step": 2, "time": 0})[:-5])
    (curve,) = http.get(f"{path}/metrics").json()["items"]
    assert curve["steps"] == [1]


@pytest.mark.parametrize("most", [1, 2, 3, 10, 99, 100, 101])
def test_a_long_curve_keeps_its_ends_and_its_shape(most):
    steps = list(range(100))
    thin = Curve("a", steps, [float(step) for step in steps], steps).thinned(most)
    assert len(thin.steps) == min(most, 100)
    assert thin.steps[-1] == 99
    assert most == 1 or thin.steps[0] == 0
    assert thin.values == thin.steps == thin.times
    gaps = [b - a for a, b in zip(thin.steps, thin.steps[1:], strict=False)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_long_history_is_thinned_on_request(http, path, journal):
    for step in range(1, 101):
        journal.append_metrics(step, {"a": 1.0}, 0)
    (curve,) = http.get(f"{path}/metrics?max_points=10").json()["items"]
    assert (len(curve["steps"]), curve["steps"][0], curve["steps"][-1]) == (10, 1, 100)


def test_curves_without_a_journal_are_none(tmp_path):
    assert read_curves(tmp_path, "abc", most_points=10) == []


def test_a_journal_that_lost_a_part_with_its_machine_shows_what_is_whole(settings, path, journal, http, caplog):
    journal.append_metrics(1, {"a": 1.0}, 0)
    with ExperimentFolder(settings.storage_root, path.rsplit("/", 1)[-1]).journal.open("ab") as file:
        file.write(b'{"metrics": {"a": 2.0\n{"metrics": [7]}\n{"metrics": {"a": null}, "step": 2, "time": 0}\n[]\n')
        file.write(b"\0" * 4096 + b"\n" + b"\0" * 64)
    journal.append_metrics(3, {"a": 3.0}, 0)
    for _ in range(2):
        (curve,) = http.get(f"{path}/metrics").json()["items"]
        assert (curve["steps"], curve["values"]) == ([1, 3], [1.0, 3.0])
    assert len([message for message in caplog.messages if "no records" in message]) == 1
