"""What a person sees: the run in MLflow, and the pages of the API."""

import re
import time

import pytest
from playwright.sync_api import expect

from tests.browser.console_page import Watched

pytestmark = pytest.mark.browser
PATIENCE_MS = 30_000


def test_the_link_of_an_experiment_leads_to_its_run_with_its_parameters(page, finished):
    page.goto(finished.links.mlflow)
    expect(page.get_by_role("heading", name="looked-at")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text("Finished").first).to_be_visible()
    expect(page.get_by_text("model.backbone").first).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text("cifar_resnet20").first).to_be_visible()


def revealed(page, text):
    """The first place of `text` on a page that draws what is in view: it is scrolled until it comes."""
    found = page.get_by_text(text).first
    size = page.viewport_size
    page.mouse.move(size["width"] / 2, size["height"] / 2)
    deadline = time.monotonic() + PATIENCE_MS / 1000
    while not found.count() and time.monotonic() < deadline:
        page.mouse.wheel(0, size["height"] / 3)
        page.wait_for_timeout(300)
    found.scroll_into_view_if_needed(timeout=PATIENCE_MS)
    return found


def test_the_run_shows_its_curves(page, finished):
    page.goto(finished.links.mlflow)
    page.get_by_role("tab", name="Model metrics").click(timeout=PATIENCE_MS)
    for curve in ("train/loss", "val/loss", "val/top1"):
        expect(revealed(page, f"looked-at ({curve})")).to_be_visible()
    drawn = page.locator("svg .scatterlayer path.js-line")
    expect(drawn.nth(2)).to_be_attached(timeout=PATIENCE_MS)  # three lines; a legend comes before its line
    points = re.findall(r"[ML,]", drawn.first.get_attribute("d") or "")
    assert len(points) > 10  # a curve over many steps, and not a dot


def test_the_run_shows_its_confusion_matrix(page, finished):
    page.goto(finished.links.mlflow)
    page.get_by_role("tab", name="Artifacts").click(timeout=PATIENCE_MS)
    expect(page.get_by_text("confusion_matrix.png").first).to_be_visible(timeout=PATIENCE_MS)


def test_the_api_docs_need_no_other_machine(page, record):
    page.goto(f"{record.url}/docs")
    expect(page.get_by_text("/v1/experiments", exact=True).first).to_be_visible(timeout=PATIENCE_MS)
    assert page.foreign == []


def test_the_console_shows_what_a_real_training_left(page, record, finished):
    console = Watched(page, record.url)
    console.open(f"#/experiments/{finished.id}")
    expect(page.get_by_role("heading", name="looked-at")).to_be_visible(timeout=PATIENCE_MS)
    for curve in ("train/loss", "val/loss", "val/top1"):
        expect(page.locator(".legend").get_by_text(curve)).to_be_visible(timeout=PATIENCE_MS)
    expect(page.get_by_text("test/top1", exact=True)).to_be_visible()
    expect(page.locator("dd").filter(has_text=re.compile(r"multiply-adds an image"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("confusion matrix")).first).to_be_visible()
    expect(page.get_by_role("region", name="Log of rank 0")).to_contain_text("val/top1")
    expect(page.get_by_role("link", name="Open in MLflow")).to_have_attribute("href", finished.links.mlflow)
    console.picture("finished-light-1400")
    assert console.axe() == []
    console.assert_clean()
