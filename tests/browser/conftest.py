"""A browser, and a stack with one finished run to look at."""

import os
import shutil

import pytest
from playwright.sync_api import sync_playwright

from service.client.client import Client
from service.stack.settings import StackSettings
from service.stack.stack import Stack
from tests.browser.console_page import Watched
from tests.support.live_service import live_service
from tests.support.ports import free_port
from tests.support.specs import spec_dict

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium. Where there is none, the tests are skipped, but never in continuous integration.

    Not for the whole run: while Playwright lives, its event loop runs in the main thread, where others run theirs.
    """
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        if os.environ.get("CBAM_REQUIRE_BROWSER") == "1":
            pytest.fail("CBAM_REQUIRE_BROWSER is set and there is no chromium")
        pytest.skip("there is no chromium; on Debian: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def record(browser, tmp_path_factory):
    """A running stack; made after the browser, so that nothing starts where there is none."""
    ports = {"port": free_port(), "mlflow_port": free_port(), "ray_port": free_port()}
    stack = Stack(StackSettings(home=tmp_path_factory.mktemp("home"), **ports))
    try:
        yield stack.up()
    finally:
        stack.down()


@pytest.fixture(scope="module")
def finished(record):
    """An experiment that has ended well."""
    train = {"epochs": 3, "global_batch_size": 64, "optimizer": {"type": "sgd", "lr": 0.05}}
    with Client(record.url) as client:
        return client.submit(spec_dict(name="looked-at", train=train)).wait(timeout=240).view


@pytest.fixture
def live(settings):
    """The service at work, over a cluster in memory: what has begun stays where it is until the test has it go on."""
    with live_service(settings) as live:
        live.cluster.steps_per_look = 0
        yield live


@pytest.fixture
def client(live):
    with Client(live.url) as client:
        yield client


@pytest.fixture
def console(page, live):
    """The console of that service; at its end nothing may have gone wrong on it."""
    watched = Watched(page, live.url)
    yield watched
    page.close()  # its streams end before the server does
    watched.assert_clean()


@pytest.fixture
def page(browser):
    """A page that notes whatever it asks of machines other than this one."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.foreign = []
    page.on("request", lambda request: "//127.0.0.1:" in request.url or page.foreign.append(request.url))
    yield page
    page.close()
