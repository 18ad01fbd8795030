"""The docs pages of a server that has tokens, in a real browser: they work under their own strict rules."""

import pytest
from playwright.sync_api import expect

from service.api.app import create_app
from service.schemas.auth import TokenRequest
from tests.support.live_server import serving

pytestmark = pytest.mark.browser
PATIENCE_MS = 30_000


@pytest.fixture
def app(settings):
    return create_app(settings)


@pytest.fixture
def url(app):
    with serving(app) as url:
        yield url


@pytest.fixture
def items(page):
    """What the browser refuses to load or run."""
    found: list[str] = []
    page.on(
        "console", lambda message: found.append(message.text) if "Content Security Policy" in message.text else None
    )
    return found


def test_a_token_is_used_by_the_button_and_the_call_answers(page, url, app, items):
    _, secret = app.state.tokens.create(TokenRequest(name="ada"), by="test")
    page.goto(f"{url}/docs")
    page.get_by_role("button", name="Authorize").first.click(timeout=PATIENCE_MS)
    page.get_by_role("textbox").first.fill(secret)
    page.get_by_role("button", name="Apply credentials").click()
    page.get_by_role("button", name="Close").first.click()
    page.get_by_role("button", name="GET /v1/whoami").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table tbody")).to_contain_text("ada", timeout=PATIENCE_MS)
    assert (items, page.foreign) == ([], [])
