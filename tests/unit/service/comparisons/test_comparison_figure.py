"""The forest plot, parsed as XML: what is drawn, where, and that hostile names stay text."""

from xml.etree import ElementTree

import pytest

from service.comparisons.figure import WIDTH, Scale, figure
from service.comparisons.result import result_of
from service.comparisons.svg import shortened, width_of, wrapped
from service.domain.studies import StudyState
from service.schemas.comparison_results import ResultView
from tests.support.studies.compared import change, comparison_spec, result, rows_of, steady, study_of

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = """</text><script>alert('1')</script> & "quoted" ]]> <!-- \x07 \u202e"""


def drawn(view: ResultView) -> ElementTree.Element:
    return ElementTree.fromstring(figure(view))


def of_class(root: ElementTree.Element, tag: str, name: str) -> list[ElementTree.Element]:
    return [each for each in root.iter(f"{SVG}{tag}") if each.get("class") == name]


def words(root: ElementTree.Element) -> list[str]:
    return [each.text or "" for each in root.iter(f"{SVG}text")]


def marks(root: ElementTree.Element, tag: str, name: str) -> list[ElementTree.Element]:
    """Those of the rows, without the one in the legend."""
    return of_class(root, tag, name)[:-1]


def test_a_row_for_each_pair_with_a_dot_for_each_seed():
    root = drawn(result(study_of(comparison_spec(margin=0.01))))
    assert len(marks(root, "circle", "dot")) == 2 * 10
    assert len(marks(root, "path", "mean")) == 2
    assert len(marks(root, "rect", "band")) == 1
    shown = words(root)
    assert {"se", "cbam", "+2.8 [2.6, 2.9]", "280 k", "of 272 k", "better", "(new images)"} <= set(shown)
    assert "percentage points more than plain" in shown
    thick = [line for line in root.iter(f"{SVG}line") if line.get("stroke-width") == "5"]
    thin = [line for line in root.iter(f"{SVG}line") if line.get("stroke-width") == "1.4"]
    assert len(thick) == 2 + 1, "a 95 % interval a row, and the legend's"
    assert len(thin) == 2 * 3 + 1, "one for all pairs a row, with two ends"


def test_where_things_stand():
    """The scale is linear: the middle of the interval is the mean, zero is in the middle of the margin."""
    view = result(study_of(comparison_spec(margin=0.01)))
    root = drawn(view)
    (band,) = marks(root, "rect", "band")
    zero = next(line for line in root.iter(f"{SVG}line") if line.get("stroke-width") == "1.2")
    middle, wide = float(band.get("x")) + float(band.get("width")) / 2, float(band.get("width"))
    assert float(zero.get("x1")) == pytest.approx(middle, abs=0.02)
    cbam = [line for line in root.iter(f"{SVG}line") if line.get("stroke-width") == "5"][1]
    low, high = float(cbam.get("x1")), float(cbam.get("x2"))
    pair = view.pairs[1]
    assert (low - middle) / wide * 0.02 == pytest.approx(pair.interval.low, abs=1e-4)
    assert (high - middle) / wide * 0.02 == pytest.approx(pair.interval.high, abs=1e-4)
    dots = sorted(float(dot.get("cx")) for dot in marks(root, "circle", "dot")[10:])
    told = [(x - middle) / wide * 0.02 for x in dots]
    assert told == pytest.approx(sorted(pair.differences), abs=1e-4)


def test_the_scale_ends_at_the_edges_of_the_plot():
    scale = Scale(-0.01, 0.03, 100.0, 500.0)
    assert [scale(value) for value in (-0.01, 0.0, 0.03)] == [100, 200, 500]
    assert [scale(value) for value in (-1, 1)] == [100, 500]
    assert scale.ticks() == pytest.approx([-0.01, 0, 0.01, 0.02, 0.03])
    for span in (0.0003, 0.004, 0.05, 0.6, 1.9):
        assert 4 <= len(Scale(-0.37 * span, 0.63 * span, 0.0, 1.0).ticks()) <= 9


def test_it_says_what_it_is_to_who_cannot_see_it():
    view = result()
    root = drawn(view)
    title, desc = root.find(f"{SVG}title"), root.find(f"{SVG}desc")
    assert root.get("role") == "img"
    assert root.get("aria-labelledby").split() == [title.get("id"), desc.get("id")]
    assert title.text == "does cbam help: differences in test/top1 from plain"
    assert all(sentence in desc.text for sentence in view.summary)


def test_both_themes_have_colours_of_their_own():
    style = drawn(result()).find(f"{SVG}style").text
    assert "prefers-color-scheme:dark" in style
    assert "url(" not in style
    assert "@import" not in style


def test_hostile_names_stay_text():
    study = study_of(comparison_spec(pairs="all"))
    rows = rows_of(study, steady())
    study.name = HOSTILE
    change(rows[0], device=HOSTILE)
    root = drawn(result_of(study, rows))
    assert not [each for each in root.iter() if each.tag not in {f"{SVG}{name}" for name in TAGS}]
    assert any("<script>alert('1')</script>" in shown for shown in words(root))
    assert "\x07" not in figure(result_of(study, rows))


TAGS = ("svg", "title", "desc", "style", "rect", "line", "path", "circle", "text")


def test_hidden_shows_counts_alone():
    spec = comparison_spec(seeds={"pilot": 8, "most": 20, "stop": {"half_width": 0.005}}, margin=0.01)
    study = study_of(spec, state=StudyState.ACTIVE)
    root = drawn(result_of(study, rows_of(study, steady(5))))
    assert not list(root.iter(f"{SVG}circle"))
    assert not of_class(root, "path", "mean")
    assert "5 of 8 seeds; hidden until the last" in words(root)
    assert any("hidden until the last seed" in shown for shown in words(root))
    assert "272 k" in " ".join(words(root)), "costs show"


def test_running_is_marked_and_its_interval_dashed():
    study = study_of(state=StudyState.ACTIVE)
    root = drawn(result_of(study, rows_of(study, steady(6))))
    assert any("6 of 10 paired seeds; running: all is provisional" in shown for shown in words(root))
    assert len(marks(root, "line", "dashed")) == 2
    assert not [line for line in root.iter(f"{SVG}line") if line.get("stroke-width") == "5"]


def test_an_interval_without_ends_points_out_of_the_plot():
    study = study_of(state=StudyState.ACTIVE)
    root = drawn(result_of(study, rows_of(study, steady(3))))
    assert len(of_class(root, "path", "tip")) == 4
    study = study_of(state=StudyState.ACTIVE)
    assert not of_class(drawn(result_of(study, rows_of(study, steady(6)))), "path", "tip")


def test_what_is_not_comparable_has_no_interval():
    study = study_of()
    rows = rows_of(study, steady())
    change(rows[0], torch="2.8.0")
    root = drawn(result_of(study, rows))
    assert any("not comparable: torch" in shown for shown in words(root))
    assert not [line for line in root.iter(f"{SVG}line") if line.get("stroke-width") in ("5", "1.4")]


@pytest.mark.parametrize("seeds", [0, 1, 2, 200])
def test_any_number_of_seeds_stays_within_its_row(seeds):
    study = study_of(comparison_spec(seeds=max(2, seeds)), state=StudyState.ACTIVE)
    root = drawn(result_of(study, rows_of(study, steady(seeds)) if seeds else []))
    rules = sorted(float(line.get("y1")) for line in of_class(root, "line", "rule"))
    for dot in marks(root, "circle", "dot") if seeds else []:
        above = [y for y in rules if y <= float(dot.get("cy"))]
        assert max(above) + 3 <= float(dot.get("cy")) + 30
        assert min(y for y in rules if y not in above) >= float(dot.get("cy")) + 3
        assert 0 < float(dot.get("cx")) < WIDTH


def test_no_text_leaves_the_page():
    names = {"plain": {"model.attention": "none"}} | {
        f"{'W' * 30}{index}": {"model.attention": {"type": "cbam", "reduction": 2 + index}} for index in range(9)
    }
    study = study_of(comparison_spec(variants=names, margin=0.01, pairs="all"))
    right = {name: [300 + (7 * block + 3 * place) % 11 for block in range(10)] for place, name in enumerate(names)}
    rows = rows_of(study, right)
    study.name = "W" * 128
    root = drawn(result_of(study, rows))
    for each in root.iter(f"{SVG}text"):
        size, bold = float(each.get("font-size")), each.get("font-weight") == "bold"
        wide, x = width_of(each.text, size, bold=bold), float(each.get("x"))
        left = {"middle": x - wide / 2, "end": x - wide}.get(each.get("text-anchor"), x)
        assert left >= 0
        assert left + wide <= WIDTH + 1, each.text


def test_text_is_broken_at_spaces_and_cut_where_there_is_no_room():
    assert wrapped("better, by less than the margin", 100, 11.5, 3) == ["better, by less", "than the margin"]
    assert wrapped("W" * 40, 100, 10, 2) == ["W" * 10, f"{'W' * 9}…"]
    assert wrapped("", 100, 10, 2) == [""]
    assert shortened("short", 100, 10) == "short"
    assert width_of(shortened("x" * 100, 100, 10), 10) <= 100
