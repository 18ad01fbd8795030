"""The server that the command line talks to."""

from collections.abc import Iterator

import pytest

from service.api.app import create_app
from service.settings import Settings
from tests.support.live_server import serving


@pytest.fixture
def server(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The API over HTTP, and CBAM_URL leads there; its address."""
    with serving(create_app(settings)) as url:
        monkeypatch.setenv("CBAM_URL", url)
        yield url
