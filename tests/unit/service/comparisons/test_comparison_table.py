"""The table of a comparison: what each cell says, and what it leaves out."""

import subprocess
import sys

import pytest

from service.comparisons.formatting import count, interval, memory, p_value, points, ratio, speed
from service.comparisons.result import result_of
from service.comparisons.table import table_of
from service.domain.states import Reason, State
from service.domain.studies import StudyState
from service.schemas.comparison_results import IntervalView
from tests.support.studies.compared import change, comparison_spec, result, rows_of, steady, study_of, unfinish


def cells(view) -> list[dict[str, str]]:
    table = table_of(view)
    assert {len(row) for row in table.rows} == {len(table.head)}
    return [dict(zip(table.head, row, strict=True)) for row in table.rows]


def test_a_row_for_each_variant_and_the_control_first():
    plain, se, cbam = cells(result(study_of(comparison_spec(control="cbam", margin=0.01))))
    assert (plain["variant"], se["variant"], cbam["variant"]) == ("cbam (control)", "plain", "se")
    plain, se, cbam = cells(result(study_of(comparison_spec(margin=0.01))))
    assert cbam == {
        "variant": "cbam",
        "n": "10",
        "top-1, %": "86.9 ± 0.7",
        "Δ [95 %], points": "+2.8 [2.6, 2.9]",
        "p (Holm)": "< 0.001",
        "wins–ties–losses": "10–0–0",
        "new images [95 %]": "[2.6, 2.9]",
        "parameters": "280 k",
        "MACs": "40 M",
        "images/s in training": "1,000",
        "verdict": "better (new images)",
    }
    assert se["verdict"] == "better, by less than the margin (new images)"
    assert plain["top-1, %"] == "84.2 ± 0.6"
    assert plain["Δ [95 %], points"] == plain["verdict"] == "–"


def test_other_pairs_have_rows_of_their_own():
    *_, pair = cells(result(study_of(comparison_spec(pairs="all"))))
    assert (pair["variant"], pair["parameters"], pair["Δ [95 %], points"]) == ("cbam − se", "× 1.02", "+2.4 [2.1, 2.8]")


def test_what_is_hidden_is_in_no_cell():
    spec = comparison_spec(seeds={"pilot": 8, "most": 20, "stop": {"half_width": 0.005}})
    study = study_of(spec, state=StudyState.ACTIVE)
    for row in cells(result_of(study, rows_of(study, steady(5)))):
        assert row["top-1, %"] == "hidden"
        assert row["Δ [95 %], points"] in ("hidden", "–")
        assert row["n"] == "5"
        assert "p (Holm)" not in row


def test_what_runs_is_provisional_and_what_was_added_to_holds_at_any_number():
    study = study_of(state=StudyState.ACTIVE)
    assert cells(result_of(study, rows_of(study, steady(6))))[2]["Δ [95 %], points"] == "+2.8 [2.0, 3.5] provisional"
    assert cells(result_of(study, rows_of(study, steady(3))))[2]["Δ [95 %], points"] == "+2.8 provisional"
    study = study_of(seeds=12, seeds_added=True)
    assert cells(result_of(study, rows_of(study, steady(12))))[2]["Δ [95 %], points"].endswith("] at any n")


def test_nothing_is_tested_of_what_is_not_comparable():
    study = study_of()
    rows = rows_of(study, steady())
    change(rows[0], torch="2.8.0")
    for row in cells(result_of(study, rows))[1:]:
        assert row["verdict"] == "not comparable"
        assert "[" not in row["Δ [95 %], points"]
        assert "p (Holm)" not in row


def test_memory_has_a_column_where_it_is_known():
    study = study_of()
    rows = rows_of(study, steady())
    assert "memory" not in cells(result_of(study, rows))[0]
    for row in rows:
        change(row, device="NVIDIA H100", peak_memory_bytes=2**30 * (1 + (row.trial.variant == "cbam")))
    assert [row["memory"] for row in cells(result_of(study, rows))] == ["× 1.00", "× 1.00", "× 2.00"]


def test_before_anything_has_run():
    study = study_of(state=StudyState.ACTIVE)
    assert table_of(result_of(study, [])).head == ("variant", "n", "verdict")


def test_a_diverged_run_is_in_the_mean():
    study = study_of()
    rows = rows_of(study, steady())
    unfinish(rows[0], State.FAILED, Reason.LOSS_NOT_FINITE)
    assert cells(result_of(study, rows))[0]["top-1, %"] == "76.8 ± 23.5"


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (count(None), "–"),
        (count(12), "12"),
        (count(999_600), "1 M"),
        (count(1_824_000_000), "1.82 G"),
        (speed(12345.6), "12,346"),
        (speed(9.876), "9.88"),
        (memory(1023 * 1024 * 1024), "1023 MiB"),
        (memory(1536 * 2**20), "1.5 GiB"),
        (ratio(1.018), "× 1.02"),
        (p_value(0.0004), "< 0.001"),
        (p_value(0.04996), "0.04996"),
        (p_value(0.3712), "0.37"),
        (p_value(None), "–"),
    ],
)
def test_numbers_in_words(told, wanted):
    assert told == wanted


def test_points_have_the_digits_that_the_images_allow():
    few, many = result(), result().model_copy(update={"resolution": 1 / 10_000})
    assert [points(0.01234, few), points(0.01234, many), points(-0.0001, few)] == ["1.2", "1.23", "0.0"]
    assert [points(-0.05, few, signed=True), points(0.05, few, signed=True)] == ["−5.0", "+5.0"]
    assert interval(IntervalView(low=None, high=0.01), few) == "[−∞, 1.0]"
    assert interval(IntervalView(low=None, high=None), few) == ""


def test_what_shows_a_result_loads_neither_the_database_nor_numbers():
    """So that the client and the CLI show what the API shows."""
    code = """
import sys
import service.comparisons.figure, service.comparisons.report, service.comparisons.table
print([name for name in ("sqlalchemy", "scipy", "numpy", "torch", "fastapi") if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout == "[]\n"
