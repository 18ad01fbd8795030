"""The web console's files: what is served, under which rules, and how one gets there."""

import hashlib
import json
import re
from pathlib import Path

import httpx2
import pytest
from fastapi.testclient import TestClient

from service.api.app import create_app
from service.console.site import FOLDER, POLICY, read_files
from service.schemas.auth import TokenRequest

ROOT = Path(__file__).parents[4]
MODULES = sorted(path for path in FOLDER.rglob("*.js") if "vendor" not in path.parts)
IMPORTED = re.compile(r"""(?:\bfrom|\bimport)\s*\(?["']([^"']+)["']""")
BUDGET_BYTES = 90_000  # of what is vendored


@pytest.fixture
def closed(http):
    """The same server for those who bring no token, where there are some."""
    http.app.state.tokens.create(TokenRequest(name="ada"), by="test")
    return http


@pytest.mark.parametrize("path", ["/console/", "/console/app.js", "/console/styles/base.css", "/console/icon.svg"])
def test_it_is_served_without_a_token_and_allows_nothing_unsafe(closed, path):
    answer = closed.get(path)
    assert answer.status_code == 200
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert "unsafe" not in POLICY
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert closed.get("/v1/experiments").status_code == 401


def test_a_script_is_a_script(http):
    types = {
        path: http.get(f"/console/{path}").headers["Content-Type"].split(";")[0]
        for path in ("", "app.js", "vendor/uplot.css", "icon.svg")
    }
    assert list(types.values()) == ["text/html", "text/javascript", "text/css", "image/svg+xml"]


def test_a_file_is_kept_and_asked_for_anew(http):
    first = http.get("/console/app.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = http.get("/console/app.js", headers={"If-None-Match": f'"x", W/{first.headers["ETag"]}'})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert again.headers["Content-Security-Policy"] == POLICY
    assert http.get("/console/app.js", headers={"If-None-Match": '"old"'}).status_code == 200


def test_head_is_get_without_a_body(http):
    told, got = http.head("/console/app.js"), http.get("/console/app.js")
    assert (told.status_code, told.content) == (200, b"")
    assert (told.headers["ETag"], told.headers["Content-Length"]) == (got.headers["ETag"], str(len(got.content)))


@pytest.mark.parametrize(
    "path",
    ["nonsense.js", "vendor/preact.d.ts", "vendor/vendor.json", "vendor", "..%2fsite.py", "%2e%2e/site.py", "//"],
)
def test_nothing_else_is_served(http, path):
    answer = http.get(f"/console/{path}")
    assert answer.status_code == 404
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_it_is_read_only(http):
    assert http.post("/console/").status_code == 405


@pytest.mark.parametrize(("path", "end"), [("/", "/console/"), ("/console", "/console/")])
def test_the_root_leads_there(closed, path, end):
    answer = closed.get(path, follow_redirects=False)
    assert (answer.status_code, answer.headers["Location"]) == (307, "console/")
    assert httpx2.URL("http://127.0.0.1").join(path).join(answer.headers["Location"]).path == end


def test_behind_a_proxy_that_cuts_a_prefix_off_nothing_leaves_it(settings):
    """Every way in the files is a relative one, and so is the redirect."""
    app = create_app(settings)

    async def proxy(scope, receive, send):
        if scope["type"] == "http":
            assert scope["path"].startswith("/lab/")
            scope = {**scope, "path": scope["path"].removeprefix("/lab")}
        await app(scope, receive, send)

    with TestClient(proxy, base_url="http://127.0.0.1") as client:
        page = client.get("/lab/")
        assert (page.status_code, page.url.path) == (200, "/lab/console/")
        for source in re.findall(r'(?:src|href)="([^"]+)"', page.text):
            assert client.get(str(page.url.join(source))).status_code == 200


def test_it_is_no_part_of_the_rest_interface(http):
    assert not [
        path
        for path in http.get("/openapi.json").json()["paths"]
        if not path.startswith(("/v1/", "/healthz")) and path not in ("/readyz", "/metrics")
    ]


def test_the_page_has_nothing_inline():
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\bstyle=|\bon\w+=|<script(?![^>]*\bsrc=)", page)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_module_imports_files_that_are_there(module):
    """A bare name would need an import map, which the policy refuses."""
    text = module.read_text(encoding="utf-8")
    for name in IMPORTED.findall(re.sub(r"/\*\*.*?\*/", "", text, flags=re.DOTALL)):
        assert name.startswith(("./", "../"))
        assert (module.parent / name).resolve().is_file(), name


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_module_is_small_and_writes_no_markup(module):
    text = module.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)


@pytest.mark.parametrize("folder", [FOLDER / "vendor", ROOT / "tests" / "browser" / "vendor"], ids=str)
def test_what_is_vendored_is_what_was_written_down(folder):
    """With its version, as package.json asks for it, its licence and its checksum."""
    wanted = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    listed = json.loads((folder / "vendor.json").read_text(encoding="utf-8"))
    scripts = {path.name for path in folder.iterdir() if path.suffix in (".js", ".css")}
    assert scripts == set(listed)
    for name, told in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == told["sha256"], name
        assert wanted[told["package"]] == told["version"]
        assert (folder / told["license_file"]).stat().st_size > 500


def test_what_is_vendored_is_small():
    assert sum(len(file.body) for name, file in read_files().items() if name.startswith("vendor/")) < BUDGET_BYTES


def test_the_lock_names_no_host():
    packages = json.loads((ROOT / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    assert not [name for name, told in packages.items() if "resolved" in told]
    assert all("integrity" in told for name, told in packages.items() if name)
