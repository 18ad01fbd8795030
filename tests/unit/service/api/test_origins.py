"""A page of another site makes a browser send what it likes: it changes nothing here, with tokens or without."""

import pytest

from tests.support.specs import spec_dict

OURS = "http://127.0.0.1"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What is refused gets to no database."""
    return sqlite_url


@pytest.fixture
def place(http) -> str:
    return str(http.post("/v1/experiments", json=spec_dict()).headers["Location"])


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:3000"},
    {"Origin": "http://localhost"},
    {"Origin": "http://127.0.0.1.evil.example"},
    {"Origin": "http://127.0.0.1@evil.example"},
    {"Origin": "file://"},
    {"Origin": "http://[::1"},
    {"Origin": "https://lab.example.org:5000"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:5000"},
    {"Sec-Fetch-Site": "cross-site", "Origin": OURS},
]
OWN = [
    {},
    {"Origin": OURS},
    {"Origin": "HTTP://127.0.0.1:80"},
    {"Origin": "https://lab.example.org"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://lab.example.org:8443"},
    {"Sec-Fetch-Site": "none"},
]
by_a_proxy_s_name = pytest.mark.parametrize("settings", [{"allowed_hosts": ("lab.example.org",)}], indirect=True)


@by_a_proxy_s_name
@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_another_site_changes_nothing(http, place, headers):
    for method, path in (("POST", f"{place}/cancel"), ("POST", f"{place}/clone"), ("DELETE", place), ("PATCH", place)):
        answer = http.request(method, path, headers=headers)
        assert answer.status_code == 403, (method, path)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert "a page of another site" in answer.json()["detail"]
    (only,) = http.get("/v1/experiments", headers=headers).json()["items"]
    assert (only["desired"], only["version"]) == ("run", 1)


@by_a_proxy_s_name
@pytest.mark.parametrize("headers", OWN)
def test_our_own_page_and_every_program_may(http, place, headers):
    assert http.post(f"{place}/cancel", headers=headers).status_code == 202


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "https://127.0.0.1:8000"])
def test_the_origin_is_where_the_request_is_sent_to_with_or_without_tls_in_front(http, place, origin):
    answer = http.post(f"{place}/cancel", headers={"Host": "127.0.0.1:8000", "Origin": origin})
    assert answer.status_code == 202


def test_a_refusal_is_written_down_by_its_status(http, place):
    http.post(f"{place}/cancel", headers={"Origin": "https://evil.example"})
    http.app.state.audit.close()
    events = http.get("/v1/audit").json()["items"]
    assert (events[0]["status"], events[0]["actor"]) == (403, None)
