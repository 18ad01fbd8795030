"""The list of experiments in a real browser, from a real server with a real dispatcher."""

import re

import pytest
from playwright.sync_api import expect
from sqlalchemy import update

from service.auth.tokens import Tokens
from service.database.models.experiments import Experiment
from service.schemas.auth import TokenRequest
from tests.browser.console_page import HOSTILE, SIZES, THEMES, tab_to
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until

pytestmark = pytest.mark.browser


@pytest.fixture
def many(client, live):
    """One that trains, one that waits for good, one that was cancelled, one that failed."""
    train = {"epochs": 20, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    running = client.submit(spec_dict(name="resnet20-cbam", train=train, tags={"paper": "cbam"}, priority=3))
    failed = client.submit(spec_dict(name="digits-se-too-large-a-rate"))
    wait_until(lambda: len(live.cluster.gangs) == 2, "both have begun")
    key = next(key for key in live.cluster.gangs if key.experiment_id == failed.id)
    live.cluster.fail(key, "LOSS_NOT_FINITE", f"the loss is nan {HOSTILE} \x1b[31mred\x1b[0m")
    waiting = client.submit(spec_dict(name="wide", resources={"workers": 2, "cpus_per_worker": 1}))
    cancelled = client.submit(spec_dict(name="an-older-one", project="other"))
    cancelled.cancel()
    wait_until(lambda: client.get(cancelled.id).view.state == "CANCELLED", "it is cancelled")
    live.cluster.steps_per_look = 7
    wait_until(lambda: client.get(running.id).view.progress.step > 20, "it trains")
    live.cluster.steps_per_look = 0
    return {"running": running, "failed": failed, "waiting": waiting, "cancelled": cancelled}


def row(page, name):
    return page.get_by_role("row").filter(has=page.get_by_role("link", name=name, exact=True))


def test_what_is_submitted_appears_by_itself_and_its_state_is_followed(console, client, live):
    page = console.open()
    expect(page.get_by_text("There are no experiments yet")).to_be_visible()
    assert console.axe() == []
    experiment = client.submit(spec_dict(name="a-new-one"))
    expect(row(page, "a-new-one")).to_contain_text("starting", timeout=5_000)
    live.cluster.steps_per_look = 5
    expect(row(page, "a-new-one")).to_contain_text("succeeded")
    expect(row(page, "a-new-one")).to_contain_text(experiment.id)


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES, ids=["wide", "phone"])
def test_everybody_can_use_it_in_both_themes_at_every_width(console, many, theme, size):
    console.page.emulate_media(color_scheme=theme)
    console.page.set_viewport_size(size)
    page = console.open()
    expect(row(page, "resnet20-cbam")).to_contain_text("running")
    row(page, "wide").get_by_role("checkbox").check()
    console.picture(f"experiments-{theme}-{size['width']}")
    page.get_by_text("More filters").click()
    assert console.axe() == []
    assert not console.scrolls_sideways()


def test_from_the_list_to_a_cancelled_experiment_by_keyboard_alone(console, client, many):
    page = console.open()
    box = row(page, "resnet20-cbam").get_by_role("checkbox")
    expect(box).to_be_visible()
    tab_to(page, box)
    page.keyboard.press("Space")
    tab_to(page, page.get_by_role("button", name="Cancel", exact=True))
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Cancel?")
    expect(dialog).to_contain_text("can be retried")
    assert console.axe() == []
    tab_to(page, dialog.get_by_role("button", name="Cancel 1 experiment"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").filter(has_text="1 of 1 experiment cancelled.")).to_be_visible()
    expect(row(page, "resnet20-cbam").locator(".state.cancelled")).to_be_visible()
    assert client.get(many["running"].id).view.state == "CANCELLED"


def test_the_filter_stands_in_the_address_and_survives_a_reload(console, many):
    page = console.open()
    expect(row(page, "resnet20-cbam")).to_be_visible()
    page.get_by_label("Name contains").fill("one")
    expect(page).to_have_url(re.compile(r"#/experiments\?q=one"))
    page.get_by_label("cancelled", exact=True).check()
    expect(page.get_by_role("row")).to_have_count(2)
    page.reload()
    expect(page.get_by_label("Name contains")).to_have_value("one")
    expect(page.get_by_label("cancelled", exact=True)).to_be_checked()
    expect(page.get_by_role("row")).to_have_count(2)
    page.get_by_role("link", name="Clear filter").click()
    expect(row(page, "resnet20-cbam")).to_be_visible()
    page.get_by_label("Name contains").fill("nonsense")
    expect(page.get_by_text("No experiment fits this filter")).to_be_visible()


def test_order_and_columns_stand_in_the_address_too(console, many):
    page = console.open("#/experiments?sort=name&columns=priority")
    names = page.locator("tbody td.c-name a")
    expect(names).to_have_text(sorted(["resnet20-cbam", "digits-se-too-large-a-rate", "wide", "an-older-one"]))
    expect(page.get_by_role("columnheader", name="Name")).to_have_attribute("aria-sort", "ascending")
    expect(row(page, "resnet20-cbam").locator("td.c-priority")).to_have_text("3")
    page.get_by_role("link", name="Priority").click()
    expect(page).to_have_url(re.compile("sort=-priority"))
    expect(names.first).to_have_text("resnet20-cbam")


def test_pages_lead_on_and_back(console, client):
    for number in range(52):
        client.submit(spec_dict(name=f"run-{number:02}", priority=number))
    page = console.open("#/experiments?sort=name")
    expect(page.get_by_role("row")).to_have_count(51)
    page.get_by_role("link", name="Next page").click()
    expect(page.get_by_role("row")).to_have_count(3)
    page.reload()
    expect(page.get_by_role("row")).to_have_count(3)
    page.go_back()
    expect(page.get_by_role("row")).to_have_count(51)


def test_what_is_hostile_stays_text_and_loses_its_escapes(console, live, many):
    """The API refuses such a name; a row of an older version, or one changed by hand, may hold it."""
    with live.store.database.writing() as session:
        wanted = Experiment.id == many["waiting"].id
        session.execute(update(Experiment).where(wanted).values(name=HOSTILE, tags={"note": HOSTILE}))
    page = console.open("#/experiments?columns=state,tags")
    expect(row(page, HOSTILE)).to_be_visible()
    expect(row(page, HOSTILE).locator(".tag")).to_have_text(f"note: {HOSTILE}")
    why = row(page, "digits-se-too-large-a-rate").locator(".why")
    expect(why).to_contain_text(f"{HOSTILE} red")
    assert page.locator("main img").count() == 0


def test_a_clone_and_a_deletion(console, client, many):
    page = console.open()
    row(page, "an-older-one").get_by_role("checkbox").check()
    page.get_by_role("button", name="Clone").click()
    expect(page.get_by_role("link", name="an-older-one", exact=True)).to_have_count(2)
    page.get_by_label(f"Select an-older-one {many['cancelled'].id}").check()
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete 1 experiment").click()
    expect(page.get_by_role("link", name="an-older-one", exact=True)).to_have_count(1)
    assert [view.id for view in client.list(id=[many["cancelled"].id])] == []


def test_a_token_is_asked_for_once_and_kept_in_the_tab(console, live, page):
    tokens = console_tokens(live)
    _, secret = tokens.create(TokenRequest(name="ada"), by="test")
    console.open("#/experiments?q=x")
    expect(page.get_by_role("heading", name="Token")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("this needs a token")
    assert console.axe() == []
    page.get_by_label("Token", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("this token is not known")
    page.get_by_label("Token", exact=True).fill(secret)
    page.keyboard.press("Enter")
    expect(page.get_by_text("No experiment fits this filter")).to_be_visible()
    expect(page.get_by_text("ada")).to_be_visible()
    page.reload()
    expect(page.get_by_text("No experiment fits this filter")).to_be_visible()
    assert page.evaluate("() => [localStorage.length, document.cookie]") == [0, ""]
    page.get_by_role("button", name="Forget token").click()
    expect(page.get_by_role("heading", name="Token")).to_be_visible()


def console_tokens(live):
    return Tokens(live.store.database)
