"""The report, as Markdown and as one HTML file: complete, without anything foreign, and hostile names stay text."""

from html.parser import HTMLParser

import pytest

from service.comparisons.figure import figure
from service.comparisons.report import html, judged, markdown
from service.comparisons.result import result_of
from service.domain.studies import StudyState
from service.schemas.comparison_results import ResultView
from tests.support.studies.compared import change, comparison_spec, result, rows_of, steady, study_of

HOSTILE = """<img src=x onerror=alert(1)> | [a](javascript:alert(1)) `code` &lt; </style> "q" """
VOID = {"meta", "rect", "line", "path", "circle"}


class Page(HTMLParser):
    """All tags, attributes and texts; and whether each tag is closed in its place."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(document)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page(view: ResultView, **more: str) -> Page:
    read = Page(html(view, figure(view), **more))
    assert not read.open
    return read


def hostile() -> ResultView:
    study = study_of(comparison_spec(margin=0.01))
    rows = rows_of(study, steady())
    study.name = study.description = HOSTILE
    change(rows[0], device=HOSTILE)
    for row in rows:
        row.trial.experiment_id = f'"><b>{row.trial.number}'
    return result_of(study, rows)


def test_the_page_has_all_there_is_to_say():
    view = result(study_of(comparison_spec(margin=0.01)))
    read = page(view)
    text = " ".join(read.texts)
    for sentence in view.summary:
        assert sentence in text
    for line in judged(view):
        assert line in text
    for condition in view.conditions:
        assert condition.value in text
    assert "svg" in read.tags
    assert text.index(view.summary[0]) < text.index("Numbers") < text.index("What was held equal")
    assert "+2.8 [2.6, 2.9]" in text


def test_each_run_is_linked_by_its_id():
    view = result()
    links = [value for name, value in page(view).attributes if name == "href"]
    assert links == [f"/v1/experiments/e{number}" for number in range(1, 31)]
    there = page(view, experiments="https://lab.example/v1/experiments/")
    assert ("href", "https://lab.example/v1/experiments/e1") in there.attributes
    assert "[83.3 %](/v1/experiments/e1)" in markdown(view)


def test_the_page_needs_nothing_else_and_does_nothing():
    for view in (result(), hostile()):
        read = page(view)
        assert not set(read.tags) & {"script", "img", "link", "iframe", "object", "embed", "base", "form"}
        assert not [name for name, _ in read.attributes if name.startswith("on") or name in ("src", "xlink:href")]
        document = html(view, figure(view))
        assert "url(" not in document
        assert "@import" not in document
        assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in read.attributes


def test_hostile_words_are_shown_as_they_are():
    text = "".join(page(hostile()).texts)
    assert text.count(HOSTILE.strip()) >= 3, "name, description, device"


def test_hostile_words_make_no_markup_in_markdown():
    report = markdown(hostile())
    assert "<img" not in report
    report = "\n".join(line for line in report.splitlines() if not line.startswith(">"))  # a description is Markdown
    assert "](javascript" not in report.replace("\\](javascript", "")
    assert "](/v1/experiments/%22%3E%3Cb%3E1)" in report
    (title,) = [line for line in report.splitlines() if line.startswith("# ")]
    assert title.startswith(r"# &lt;img src=x onerror=alert(1)> \| [a\](javascript:alert(1)) \`code\` &amp;lt;")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("1. one", r"1\. one"), ("# head", r"\# head"), ("- item", r"\- item"), ("a_b*c", r"a\_b\*c"), ("+0.3", "+0.3")],
)
def test_what_would_be_markup_is_escaped(name, wanted):
    assert markdown(result(study_of(name="x")).model_copy(update={"name": name})).startswith(f"# {wanted}\n")


def test_the_markdown_has_the_same_table():
    report = markdown(result(study_of(comparison_spec(margin=0.01))))
    lines = report.splitlines()
    at = lines.index("## Numbers")
    assert lines[at + 2].startswith("| variant | n | top-1, % |")
    assert "| cbam | 10 | 86.9 ± 0.7 | +2.8 [2.6, 2.9] | < 0.001 | 10–0–0 |" in lines[at + 6]
    assert len({line.count("|") for line in lines[at + 2 : at + 7]}) == 1
    assert len(list(judged(result()))) == 6


def test_a_description_is_quoted():
    report = markdown(result(study_of(comparison_spec(description="Why\n\n```\n<script>\n# not a head"))))
    assert "> Why\n>\n> ```\n> &lt;script>\n> # not a head\n" in report


def test_what_is_not_comparable_and_what_warns_is_said():
    study = study_of(comparison_spec(metric="val/top1"))
    rows = rows_of(study, steady())
    change(rows[0], torch="2.8.0")
    view = result_of(study, rows)
    text = " ".join(page(view).texts)
    assert view.not_comparable[0].words in text
    assert view.warnings[0] in text
    report = markdown(view)
    assert "## Not comparable\n\n- torch is not the same: 2.9.0" in report
    assert "## Warnings\n\n- measured on what was selected on" in report
    assert "## Warnings" not in markdown(result())


def test_what_is_hidden_is_in_neither():
    spec = comparison_spec(seeds={"pilot": 8, "most": 20, "stop": {"half_width": 0.005}})
    study = study_of(spec, state=StudyState.ACTIVE)
    view = result_of(study, rows_of(study, steady(5)))
    for report in (markdown(view), " ".join(page(view).texts)):
        assert "hidden" in report
        assert "83.3" not in report
        assert "means stay hidden until the last" in report


def test_added_seeds_are_judged_otherwise():
    study = study_of(seeds=12, seeds_added=True)
    report = markdown(result_of(study, rows_of(study, steady(12))))
    assert "an interval for any number of seeds" in report
    assert "paired t-test" not in report


def test_who_stops_early_is_told_so():
    study = study_of(state=StudyState.CANCELLED)
    view = result_of(study, rows_of(study, steady(8)))
    assert "The comparison ended before its last seed, so only an interval for any" in markdown(view)
    assert "8 of 10 paired seeds; it ended before its last seed" in figure(view)


def test_before_anything_has_run():
    study = study_of(state=StudyState.ACTIVE)
    view = result_of(study, [])
    assert "## Runs" not in markdown(view)
    assert "Runs" not in page(view).texts
