"""What the MLflow runs of a comparison say, of its result and its runs' curves alone."""

import base64
import json
import zlib

import pytest

from service.comparisons.recording.content import (
    LONGEST_TAG,
    Places,
    curve_metrics,
    description,
    final_metrics,
    parent_tags,
    summarised_seeds,
)
from service.comparisons.recording.curves import Point, bands
from service.comparisons.recording.view_state import view_state
from service.experiments.metric_history import Curve
from tests.support.studies.results import interval, pair, result, variant


def run(val: list[float | None], loss: list[float]) -> dict[str, Curve]:
    """Epochs of 10 steps, and a loss every 5."""
    ends = [10 * (epoch + 1) for epoch in range(len(val))]
    steps = [5 * (place + 1) for place in range(len(loss))]
    return {"val/top1": Curve("val/top1", ends, val), "train/loss": Curve("train/loss", steps, [*loss])}


def test_a_band_is_the_mean_the_lowest_and_the_highest_seed_of_each_epoch():
    found = bands([run([0.5, 0.7], [4, 3, 2, 1]), run([0.6, 0.6], [4, 5, 6, 7])])
    assert found == {
        "train/loss": [Point(10, 4.0, 3, 5), Point(20, 4.0, 1, 7)],
        "val/top1": [Point(10, pytest.approx(0.55), 0.5, 0.6), Point(20, pytest.approx(0.65), 0.6, 0.7)],
    }
    assert curve_metrics({"val/top1": [Point(10, 0.55, 0.5, 0.6)]}) == [
        ("val/top1", 0.55, 10),
        ("val/top1 low", 0.5, 10),
        ("val/top1 high", 0.6, 10),
    ]


def test_a_band_ends_where_a_seed_diverged_and_is_none_where_files_are_gone():
    assert [point.step for point in bands([run([0.5, 0.7], []), run([0.6, None], [])])["val/top1"]] == [10]
    assert [point.step for point in bands([run([0.5, 0.7], []), run([0.6], [])])["val/top1"]] == [10]
    assert bands([run([0.5], []), {}]) == {}
    assert bands([]) == {}


def test_summaries_are_made_anew_at_each_doubling_and_at_the_end():
    assert [summarised_seeds(n, is_over=False) for n in range(10)] == [0, 1, 2, 2, 4, 4, 4, 4, 8, 8]
    assert [summarised_seeds(n, is_over=True) for n in (0, 1, 7)] == [0, 1, 7]


def test_the_interval_of_a_mean_is_students():
    """R: t.test(c(.8, .82, .84, .86, .88))$conf.int gives 0.8007352 and 0.8792648."""
    values = final_metrics(result(), variant("cbam", accuracies=[0.8, 0.82, 0.84, 0.86, 0.88, 0.1]), 5)
    assert values["test/top1"] == pytest.approx(0.84)
    low, high = values["test/top1 over seeds low"], values["test/top1 over seeds high"]
    assert (low, high) == (pytest.approx(0.8007352, abs=1e-6), pytest.approx(0.8792648, abs=1e-6))
    assert "test/top1 over seeds low" not in final_metrics(result(), variant("cbam", accuracies=[0.8, 0.82]), 2)


def test_the_verdicts_come_before_links_and_numbers_and_are_tags():
    view = result(pairs=[pair(interval=interval(0.005, 0.02))])
    note = description(view, Places("http://m/view", "http://api/", {"cbam": "http://m/cbam"}))
    order = ["CBAM beats plain.", "http://m/view", "http://api/v1/comparisons/abcdefghjkmn/report", "| variant |"]
    assert [note.index(words) for words in order] == sorted(note.index(words) for words in order)
    assert "[`cbam`](http://m/cbam)" in note
    assert parent_tags(view, "ada")["cbam.verdict"] == "cbam against plain: better (these images only)"


def test_a_long_description_is_cut_at_a_line_and_says_where_the_rest_is():
    view = result(summary=[f"sentence {number} " * 20 for number in range(100)])
    note = description(view, Places())
    assert len(note) <= LONGEST_TAG
    assert note.endswith("*More is in the artifact `report.md`.*")
    assert "sentence 0" in note


def test_the_saved_view_fits_a_tag_and_is_json():
    told = view_state("abc", "test/top1")
    assert len(told) < 20_000
    state = json.loads(zlib.decompress(base64.b64decode(told.removeprefix("deflate;"))))
    assert state["searchFilter"] == "tags.`cbam.summary_of` = 'abc'"
    assert state["compareRunCharts"][0]["selectedMetricKeys"] == ["val/top1", "val/top1 low", "val/top1 high"]
    assert state["selectedColumns"][0] == "metrics.`test/top1`"
