"""Comparisons in a real browser: the verdict, the plot, and what can be asked of one."""

import re

import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from service.database.models.studies import Study
from tests.browser.console_page import HOSTILE, SIZES, THEMES
from tests.support.studies.comparing import comparison_dict, leave_predictions

pytestmark = pytest.mark.browser


@pytest.fixture
def live(live):
    live.cluster.export = leave_predictions
    return live


@pytest.fixture
def finished(client, live):
    """CBAM against plain and SE over 8 seeds."""
    live.cluster.steps_per_look = 50
    variants = {"plain": {"model.attention": "none"}, "se": {"model.attention": "se"}, "cbam": {}}
    comparison = client.compare(comparison_dict(variants=variants))
    comparison.wait(timeout=120)
    return comparison


def test_the_list_leads_to_a_comparison_whose_verdict_comes_first(console, client, finished):
    page = console.open()
    page.get_by_role("link", name="Comparisons").click()
    expect(page.get_by_role("row").filter(has_text="does-cbam-help")).to_contain_text("24 of 24 runs ended")
    page.get_by_role("link", name="does-cbam-help").click()
    told = finished.result
    expect(page.locator(".verdict")).to_have_text(list(told.summary))
    places = page.evaluate(
        "() => ['.verdict', '.forest', 'table'].map(one => document.querySelector(one).getBoundingClientRect().top)"
    )
    assert places == sorted(places)
    plot = page.get_by_role("img", name="Differences in test/top1 from plain")
    expect(plot.locator("circle.dot")).to_have_count(16)
    expect(plot.locator("line.thick")).to_have_count(2)
    expect(plot.locator("line.thin")).to_have_count(2)
    expect(plot.locator("rect.band")).to_have_count(1)
    expect(page.get_by_role("table", name="Variants").get_by_role("row")).to_have_count(4)
    expect(page.get_by_role("table", name="Runs").get_by_role("row")).to_have_count(9)
    page.reload()
    expect(page.locator(".verdict").first).to_have_text(told.summary[0])


def test_it_grows_while_it_runs_and_takes_more_seeds(console, client, live):
    comparison = client.compare(comparison_dict(seeds=3))
    page = console.open(f"#/comparisons/{comparison.id}")
    expect(page.get_by_text("0 of 3 paired seeds finished")).to_be_visible()
    expect(page.locator(".forest circle.dot")).to_have_count(0)
    live.cluster.steps_per_look = 50
    expect(page.get_by_text("3 of 3 paired seeds finished")).to_be_visible()
    expect(page.locator(".forest svg[role=img] circle.dot")).to_have_count(3)
    page.get_by_label("Seeds to add").fill("2")
    page.get_by_role("button", name="Add seeds").click()
    expect(page.get_by_text("It has 5 seeds for each of 2 variants now.")).to_be_visible()
    expect(page.locator(".forest svg[role=img] circle.dot")).to_have_count(5)
    expect(page.locator(".forest svg[role=img] line.dashed")).to_have_count(1)


def test_the_report_is_saved_as_a_file(console, finished):
    page = console.open(f"#/comparisons/{finished.id}")
    for button, ending in (("Save report", ".html"), ("Save as Markdown", ".md"), ("Save figure", ".svg")):
        with page.expect_download() as saved:
            page.get_by_role("button", name=button).click()
        assert saved.value.suggested_filename == finished.id + ending
        assert "does-cbam-help" in saved.value.path().read_text(encoding="utf-8")


def test_it_is_cancelled_by_its_button_and_its_runs_lead_to_experiments(console, client):
    comparison = client.compare(comparison_dict())
    page = console.open(f"#/comparisons/{comparison.id}")
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.locator(".head .state")).to_contain_text("cancelled")
    page.get_by_role("table", name="Runs").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name="Curves")).to_be_visible()
    page.get_by_role("link", name=comparison.id).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("does-cbam-help")


def test_what_is_hostile_stays_text(console, live, finished):
    with live.store.database.writing() as session:
        session.execute(update(Study).where(Study.id == finished.id).values(name=HOSTILE, description=HOSTILE))
    page = console.open("#/comparisons")
    expect(page.get_by_role("link", name=HOSTILE)).to_be_visible()
    page.get_by_role("link", name=HOSTILE).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(HOSTILE)
    expect(page.locator(".description")).to_have_text(HOSTILE)
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES, ids=["wide", "phone"])
def test_everybody_can_use_both_pages(console, finished, theme, size):
    console.page.emulate_media(color_scheme=theme)
    console.page.set_viewport_size(size)
    page = console.open("#/comparisons")
    expect(page.get_by_role("link", name="does-cbam-help")).to_be_visible()
    console.picture(f"comparisons-{theme}-{size['width']}")
    assert console.axe() == []
    assert not console.scrolls_sideways()
    page.get_by_role("link", name="does-cbam-help").click()
    expect(page.locator(".verdict").first).to_contain_text(re.compile("cbam|se"))
    console.picture(f"comparison-{theme}-{size['width']}")
    assert console.axe() == []
    assert not console.scrolls_sideways()


def test_an_empty_list_says_what_to_do(console, page):
    console.open("#/comparisons")
    expect(page.get_by_text("cbam compare init")).to_be_visible()
    assert console.axe() == []
