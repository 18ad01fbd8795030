"""What every test of the web console looks for: no error, no foreign request, nothing that shuts people out."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
PATIENCE_MS = 20_000
HOSTILE = "<img src=x onerror=alert(1)>"
THEMES = ("light", "dark")
SIZES = ({"width": 1280, "height": 800}, {"width": 375, "height": 740})


@dataclass
class Watched:
    """A page, and what went wrong on it so far."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self._note)
        self.page.on("dialog", lambda dialog: (self.errors.append(f"a dialog: {dialog.message}"), dialog.dismiss()))

    def _note(self, message: ConsoleMessage) -> None:
        """Errors, but for the browser's own line about every answer of the API that is none of success."""
        is_refusal = "Failed to load resource" in message.text and "/v1/" in message.location.get("url", "")
        if "Content Security Policy" in message.text or (message.type == "error" and not is_refusal):
            self.errors.append(message.text)

    def open(self, place: str = "") -> Page:
        """Go to a place of the console, as a link from elsewhere would."""
        self.page.goto(f"{self.url}/console/{place}")
        return self.page

    def axe(self) -> list[str]:
        """What axe-core has against the page as it is: the rule, and the elements."""
        self.page.evaluate(AXE.read_text(encoding="utf-8") + "; void 0")
        found = self.page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {json.dumps([node['html'][:200] for node in one['nodes']])}" for one in found["violations"]
        ]

    def scrolls_sideways(self) -> bool:
        """Whether the page is wider than its window."""
        return self.page.evaluate("() => document.documentElement.scrollWidth > document.documentElement.clientWidth")

    def picture(self, name: str) -> None:
        """Keep how the page looks, where CONSOLE_PICTURES names a folder."""
        if folder := os.environ.get("CONSOLE_PICTURES"):
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)

    def assert_clean(self) -> None:
        """Nothing was refused by the policy, failed, or asked of another machine."""
        assert (self.errors, self.page.foreign) == ([], [])


def tab_to(page: Page, wanted: Locator) -> None:
    """Press Tab until the focus is there, as one who has no mouse does."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    pytest.fail(f"Tab never comes to {wanted}")
