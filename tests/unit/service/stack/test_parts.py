"""How one sees that a part of the stack works."""

from urllib.parse import urlsplit
from urllib.request import url2pathname

import psutil
import pytest
from sqlalchemy.engine import make_url
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from service.api import health
from service.database.engine import Database
from service.settings import Settings
from service.stack.parts import parts
from service.stack.record import StackRecord
from service.stack.settings import StackSettings
from tests.support.live_server import serving


@pytest.fixture
def proxied(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


async def _well(_request: Request) -> JSONResponse:
    return JSONResponse({"components": {"dispatcher": {"ok": True}}})


@pytest.mark.usefixtures("proxied")
def test_what_works_is_seen_through_whatever_proxy_the_user_has(tmp_path):
    with serving(Starlette(routes=[Route("/{path:path}", _well)])) as url:
        port = int(url.rsplit(":", 1)[1])
        record = StackRecord(ports={"api": port, "mlflow": port, "ray": port})
        group = [psutil.Process(), psutil.Process()]
        seen = {part.name: part.answers(group) for part in parts(StackSettings(home=tmp_path), record)}
        tracked = health._mlflow(Settings(home=tmp_path, mlflow_tracking_uri=url))
    assert seen == {"ray": False, "mlflow": True, "api": True, "dispatcher": True}  # no raylet among them
    assert tracked.ok, tracked.detail


@pytest.mark.parametrize("name", ["h?x", "h%41x", "h#x", "h x", "h?a=1&b=%3F#c d", "ü"])
def test_in_a_home_of_any_name_each_database_is_a_file_of_its_own(tmp_path, name):
    home = tmp_path / name
    settings = StackSettings(home=home)
    database = Database(settings.database_url)
    database.migrate()
    database.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in home.iterdir()} == {"cbam.db"}

    command = parts(settings, StackRecord(ports={"api": 1, "mlflow": 2, "ray": 3}))[1].command
    options = dict(word.split("=", 1) for word in command if word.startswith("--"))
    assert make_url(options["--backend-store-uri"]).database == "mlflow/mlflow.db"  # below its cwd, the home
    assert url2pathname(urlsplit(options["--artifacts-destination"]).path) == str(home / "mlflow/artifacts")
