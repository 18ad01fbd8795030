"""What answers tell browsers."""

import re

import pytest

from service.api.middleware.security_headers import page_policy


@pytest.mark.parametrize("path", ["/v1/experiments", "/v1/experiments/x", "/healthz", "/metrics", "/openapi.json"])
def test_answers_for_programs_are_nothing_to_show_and_nothing_to_keep(http, path):
    headers = http.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_refusals_carry_them_too(http):
    refused = http.get("/healthz", headers={"host": "evil.example"})
    assert (refused.status_code, refused.headers["X-Content-Type-Options"]) == (400, "nosniff")


@pytest.mark.parametrize("path", ["/docs"])
def test_a_page_may_run_its_own_scripts_and_no_other(http, path):
    page = http.get(path)
    policy = page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "unsafe" not in scripts
    inline = re.findall(r"<script(?![^>]*\bsrc=)[^>]*>", page.text)
    assert scripts.count("'sha256-") == len(inline)
    assert policy == page_policy(page.content)
    for source in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert source.startswith("/static-offline-docs/")
        assert http.get(source).headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_offers_to_use_a_token(http):
    schemes = http.get("/openapi.json").json()["components"]["securitySchemes"]
    assert [(s["type"], s["scheme"]) for s in schemes.values()] == [("http", "bearer")]
