"""The result of a comparison as a table, for terminals, pandas and notebooks."""

import sys

import pytest

from service.client.comparison_table import COLUMNS, as_frame, as_html, records, rows, shown_table, words
from service.errors import MissingExtra
from tests.support.results import interval, pair, result, unequal, variant


def cells(one, number=1):
    """The cells of a row by the heads of their columns."""
    return dict(zip([column.removeprefix(">") for column in COLUMNS], rows(one)[number], strict=True))


def test_the_control_and_each_difference_have_a_row():
    assert cells(result(), 0)["top-1 % ± sd"] == "90.0 ± 1.0"
    assert cells(result(), 0)["verdict"] == "control"
    told = cells(result())
    assert told["variant"] == "cbam"
    assert told["Δ points [95 %]"] == "+1.2 [+0.5, +2.0]"
    assert (told["p"], told["W–T–L"]) == ("0.012", "6–1–1")
    assert told["verdict"] == "better (these images only)"


def test_where_one_image_is_little_there_is_a_digit_more():
    assert cells(result(resolution=0.0001))["Δ points [95 %]"] == "+1.25 [+0.50, +2.00]"


def test_a_negative_number_has_a_minus_and_zero_no_sign_of_its_own():
    one = pair(difference=-0.004, interval=interval(-0.01, -0.0000001))
    assert cells(result(pairs=[one]))["Δ points [95 %]"] == "−0.4 [−1.0, +0.0]"


def test_while_seeds_run_only_the_interval_is_told_that_holds_at_every_look():
    running = pair(verdict="running", scope=None, interval=interval(0.011, 0.014), anytime=interval(-0.02, 0.05))
    assert cells(result(pairs=[running]))["Δ points [95 %]"] == "+1.2 [−2.0, +5.0]"
    early = pair(verdict="running", scope=None, interval=interval(0.011, 0.014), anytime=interval(None, None))
    assert cells(result(pairs=[early]))["Δ points [95 %]"] == "+1.2"


def test_what_is_hidden_is_said_to_be():
    hidden = {"mean": None, "sd": None, "accuracies": []}
    variants = [variant("plain", **hidden), variant("cbam", **hidden)]
    none = pair(verdict="running", scope=None, difference=None, interval=None, p_holm=None, wins=None)
    one = result(hidden=True, variants=variants, pairs=[none])
    assert cells(one)["top-1 % ± sd"] == "hidden"
    columns, shown = shown_table(one)
    assert "W–T–L" not in columns
    assert {len(row) for row in shown} == {len(columns)}


def test_differences_between_variants_name_both():
    variants = [variant("plain"), variant("se"), variant("cbam")]
    pairs = [pair("se"), pair("cbam"), pair("cbam", "se")]
    one = result(variants=variants, pairs=pairs, pairs_judged="all")
    assert [row[0] for row in rows(one)] == ["plain", "se", "cbam", "cbam − se"]
    assert [(line["variant"], line["against"]) for line in records(one)][1:] == [
        ("se", "plain"),
        ("cbam", "plain"),
        ("cbam", "se"),
    ]


def test_what_is_not_comparable_is_told_with_the_values():
    one = result(not_comparable=[unequal("device", "the runs used different devices", H100=12, A100=4)])
    assert next(words(one)) == ("not comparable, device: the runs used different devices (H100: 12 runs; A100: 4 runs)")


def test_warnings_are_told_once():
    one = result(warnings=["few seeds"], pairs=[pair(warnings=["few seeds", "one image"])])
    assert list(words(one)) == ["CBAM beats plain.", "note: few seeds", "note: one image"]


def test_a_hostile_name_neither_moves_the_cursor_nor_makes_elements():
    name = "\x1b[2J<img src=x onerror=alert(1)>\n"
    one = result(name=name, variants=[variant("plain"), variant(name)], pairs=[pair(name)])
    assert "\x1b" not in "".join(cell for row in rows(one) for cell in row)
    assert "\n" not in rows(one)[1][0]
    assert "<img" not in as_html(one)


def test_a_frame_holds_numbers():
    frame = as_frame(result()).set_index("variant")
    assert frame.loc["cbam", "difference"] == 0.0125
    assert frame.loc["cbam", "low"] == 0.005
    assert frame.loc["cbam", "against"] == "plain"
    assert frame.isna().loc["plain", ["against", "difference"]].all()


def test_without_pandas_a_frame_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtra, match="pip install pandas"):
        as_frame(result())
