"""The result of a comparison as a table, for terminals, pandas and notebooks."""

import sys

import pytest

from service.client.comparing.table import as_frame, as_html, fitting_table, records, shown_table, words
from service.client.errors import NeedsPandas
from tests.support.studies.results import pair, result, unequal, variant


def test_columns_of_numbers_stand_to_the_right():
    columns, rows = shown_table(result())
    assert columns[:2] == ["variant", ">n"]
    assert columns[-1] == "verdict"
    assert {len(row) for row in rows} == {len(columns)}


def test_a_narrow_terminal_goes_without_the_costs_first():
    columns, rows = shown_table(result())
    assert fitting_table(result(), 1000) == (columns, rows, [])
    narrow, shown, gone = fitting_table(result(), 90)
    assert gone[:2] == ["images/s in training", "MACs"]
    assert "verdict" in narrow
    assert {len(row) for row in shown} == {len(narrow)}
    assert {*narrow} | {f">{name}" for name in gone} == {*columns}
    width = sum(max(map(len, column)) + 3 for column in zip(narrow, *shown, strict=True))
    assert width <= 90


def test_the_control_and_each_difference_have_a_record():
    variants = [variant("plain"), variant("se"), variant("cbam")]
    pairs = [pair("se"), pair("cbam"), pair("cbam", "se")]
    one = result(variants=variants, pairs=pairs, pairs_judged="all")
    assert [(line["variant"], line["against"]) for line in records(one)] == [
        ("plain", None),
        ("se", "plain"),
        ("cbam", "plain"),
        ("cbam", "se"),
    ]


def test_what_is_not_comparable_is_told_with_the_values():
    one = result(not_comparable=[unequal("device", "the runs used different devices", H100=12, A100=4)])
    assert next(words(one)) == "not comparable, device: the runs used different devices (H100: 12 runs; A100: 4 runs)"


def test_warnings_are_told_once():
    one = result(warnings=["few seeds"], pairs=[pair(warnings=["few seeds", "one image"])])
    assert list(words(one)) == ["CBAM beats plain.", "note: few seeds", "note: one image"]


def test_a_hostile_name_makes_no_elements():
    name = "<img src=x onerror=alert(1)>"
    one = result(name=name, variants=[variant("plain"), variant(name)], pairs=[pair(name)], summary=[name])
    assert "<img" not in as_html(one)
    assert as_html(one).count("&lt;img") == 3


def test_a_frame_holds_numbers():
    frame = as_frame(result()).set_index("variant")
    assert frame.loc["cbam", "difference"] == 0.0125
    assert frame.loc["cbam", "low"] == 0.005
    assert frame.loc["cbam", "against"] == "plain"
    assert frame.isna().loc["plain", ["against", "difference"]].all()


def test_without_pandas_a_frame_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(NeedsPandas, match="pip install pandas"):
        as_frame(result())
