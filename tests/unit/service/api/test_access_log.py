"""Every request has an id, one line in the log, and a place in the numbers, however it ends."""

import logging

import pytest

from tests.support.specs import spec_dict


def access_lines(caplog):
    return [record for record in caplog.records if record.name == "service.access"]


@pytest.fixture(autouse=True)
def listening(caplog):
    caplog.set_level(logging.INFO, logger="service")


def test_an_id_of_the_callers_own_comes_back(http):
    assert http.get("/healthz", headers={"X-Request-ID": "abc-1"}).headers["X-Request-ID"] == "abc-1"


@pytest.mark.parametrize("hostile", ["", "x" * 65, "a b", 'a"b', "a=b"])
def test_an_id_that_cannot_be_used_is_replaced(http, hostile):
    answer = http.get("/healthz", headers={"X-Request-ID": hostile})
    assert answer.headers["X-Request-ID"] not in ("", hostile)


def test_two_requests_have_two_ids(http):
    assert http.get("/healthz").headers["X-Request-ID"] != http.get("/healthz").headers["X-Request-ID"]


def test_a_request_is_logged_without_its_query_and_with_its_experiment(http, caplog):
    made = http.post("/v1/experiments", json=spec_dict()).json()
    caplog.clear()
    http.get(f"/v1/experiments/{made['id']}/events?limit=1")
    (line,) = access_lines(caplog)
    assert line.getMessage() == f"GET /v1/experiments/{made['id']}/events"
    assert (line.status, line.experiment_id) == (200, made["id"])


def test_probes_are_not_logged(http, caplog):
    http.get("/healthz")
    assert access_lines(caplog) == []


def test_what_fails_unexpectedly_is_found_by_its_id(http, caplog, monkeypatch):
    monkeypatch.setattr("service.experiments.store.ExperimentStore.get", lambda *_: 1 / 0)
    answer = http.get("/v1/experiments/abc", headers={"X-Request-ID": "find-me"})
    assert answer.status_code == 500
    assert answer.headers["X-Request-ID"] == "find-me"
    assert "find-me" in answer.json()["detail"]
    (line,) = access_lines(caplog)
    assert (line.status, line.levelno) == (500, logging.WARNING)
    assert any(getattr(record, "request_id", None) == "find-me" and record.exc_info for record in caplog.records)
    assert 'status="500"' in http.get("/metrics").text
