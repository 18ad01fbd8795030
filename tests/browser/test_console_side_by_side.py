"""Several experiments beside each other in a real browser."""

import pytest
from playwright.sync_api import expect

from tests.browser.console_page import SIZES, THEMES
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder
from workers.tracking.journal import Journal

pytestmark = pytest.mark.browser


@pytest.fixture
def two(client, settings):
    """Two experiments that differ in their attention, each with a curve."""
    made = []
    for name in ("cbam", "se"):
        model = {"backbone": "cifar_resnet20", "attention": {"type": name}}
        made.append(client.submit(spec_dict(name=f"with-{name}", model=model)))
        journal = Journal(ExperimentFolder(settings.storage_root, made[-1].id).journal)
        for step in range(50):
            journal.append_metrics(step, {"train/loss": 2 / (1 + step / (5 + 5 * len(made)))}, step)
        journal.close()
    return made


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES, ids=["wide", "phone"])
def test_what_differs_stands_side_by_side(console, two, theme, size):
    console.page.emulate_media(color_scheme=theme)
    console.page.set_viewport_size(size)
    page = console.open()
    for experiment in two:
        page.get_by_label(f"Select {experiment.view.name} {experiment.id}").check()
    page.get_by_role("link", name="Compare", exact=True).click()
    table = page.get_by_role("table", name="Experiments side by side")
    expect(table.get_by_role("columnheader")).to_have_count(2)
    expect(table.get_by_role("row", name="model.attention.type")).to_contain_text("cbam")
    expect(table.get_by_role("row", name="model.backbone")).to_have_count(0)
    expect(page.locator("figure.plot .legend li")).to_have_count(2)
    expect(page.locator("figure.plot .legend")).to_contain_text(f"with-se {two[1].id}")
    page.reload()
    expect(page.locator("figure.plot .legend li")).to_have_count(2)
    console.picture(f"compare-{theme}-{size['width']}")
    assert console.axe() == []
    assert not console.scrolls_sideways()


def test_without_any_it_says_where_they_are_chosen(console):
    page = console.open("#/compare")
    expect(page.get_by_text("Select experiments in")).to_be_visible()
    page.goto(f"{console.url}/console/#/compare?id=nonsense")
    expect(page.get_by_text("Gone: 1 of 1")).to_be_visible()
