"""Addresses in URLs, and loopback, for which no proxy is asked."""

import os
import subprocess
import sys
import urllib.request

import pytest
import requests.utils

from workers.protocol.addresses import host_and_port, is_here, without_proxy_to_loopback

PROXY = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
HERE = ("http://127.0.0.1:5000/a", "http://localhost:5000", "http://[::1]:5000", "http://127.8.0.1:5000/")
ELSEWHERE = ("http://example.org", "http://10.0.0.1:5000", "http://localhost.example.org:5000")


def test_an_ipv6_address_stands_in_brackets():
    assert host_and_port("127.0.0.1", 80) == "127.0.0.1:80"
    assert host_and_port("::1", 80) == "[::1]:80"


def test_which_urls_lead_to_this_machine():
    assert all(map(is_here, HERE))
    assert not any(map(is_here, (*ELSEWHERE, "http://[::1", "")))


@pytest.mark.parametrize("given", [{}, {"no_proxy": "a.org, b.org"}, {"NO_PROXY": "a.org"}, {"no_proxy": "localhost"}])
def test_no_library_asks_a_proxy_for_loopback(monkeypatch, given):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in (PROXY | given).items():
        monkeypatch.setenv(name, value)
    for name, value in without_proxy_to_loopback(os.environ).items():
        monkeypatch.setenv(name, value)
    for url in HERE:
        assert requests.utils.get_environ_proxies(url) == {}, url
    for url in ELSEWHERE:
        assert requests.utils.get_environ_proxies(url)["http"] == PROXY["http_proxy"], url
    assert urllib.request.proxy_bypass("127.0.0.1:5000")
    for excepted in next(iter(given.values()), "").split(","):
        assert not excepted or requests.utils.get_environ_proxies(f"http://{excepted.strip()}") == {}


def test_where_there_is_no_proxy_or_none_is_wanted_nothing_is_set():
    assert without_proxy_to_loopback({"PATH": "/bin"}) == {}
    both = without_proxy_to_loopback(PROXY | {"no_proxy": "a", "NO_PROXY": "corp.internal, a"})
    assert both["no_proxy"].startswith("a,corp.internal,localhost")
    assert without_proxy_to_loopback(PROXY | {"no_proxy": "*"}) == {}


def test_mlflow_on_loopback_is_asked_without_the_proxy():
    code = (
        "from workers.tracking.mlflow_client import set_environment; set_environment();"
        "import requests.utils as u; print(u.get_environ_proxies('http://127.0.0.1:5000/api'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | PROXY, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "{}"
