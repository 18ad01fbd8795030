"""The dispatcher's numbers, as an API gives them to Prometheus."""

import re
import threading

from prometheus_client.parser import text_string_to_metric_families

from service.cluster.base import GangKey
from service.database.operations import Operations
from service.dispatcher.prometheus import REPORT_SECONDS, DispatcherMetrics
from service.domain.states import State
from tests.support.dispatching import tick, until
from tests.support.specs import spec
from tests.support.waiting import wait_until


def numbers(http):
    """Every sample of `/metrics`; reading it is a test of its form."""
    families = text_string_to_metric_families(http.get("/metrics").text)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value for family in families for sample in family.samples
    }


def test_before_a_dispatcher_has_led_there_are_only_the_apis_numbers(http):
    assert ("cbam_dispatcher_tick_seconds_count",) not in numbers(http)


def test_ticks_starts_and_failures_are_told_by_every_api(http, dispatcher, store, cluster, clock):
    failing, _ = store.submit(spec())
    until(dispatcher, store, failing.id, State.RUNNING)
    cluster.fail(GangKey(failing.id, 1), "LOSS_NOT_FINITE")
    until(dispatcher, store, failing.id, State.FAILED)
    clock.advance(REPORT_SECONDS)
    tick(dispatcher)
    seen = numbers(http)
    assert seen[("cbam_dispatcher_tick_seconds_count",)] >= 3
    assert seen[("cbam_queue_seconds_count",)] == seen[("cbam_start_seconds_count",)] == 1
    assert seen[("cbam_attempts_ended_total", ("reason", "LOSS_NOT_FINITE"))] == 1
    assert seen[("cbam_experiments_ended_total", ("reason", "LOSS_NOT_FINITE"), ("state", "FAILED"))] == 1
    assert seen[("cbam_cluster_reachable",)] == 1
    assert seen[("cbam_cluster", ("kind", "total"), ("resource", "cpu"))] > 0
    assert seen[("cbam_experiments", ("state", "FAILED"))] == 1
    assert 0 <= seen[("cbam_dispatcher_report_age_seconds",)] < 60


def test_a_report_is_written_every_few_seconds_and_not_at_every_tick(dispatcher, store, clock):
    tick(dispatcher)
    first = Operations(store.database).dispatcher_report().at
    tick(dispatcher)
    assert Operations(store.database).dispatcher_report().at == first
    clock.advance(REPORT_SECONDS)
    tick(dispatcher)
    assert Operations(store.database).dispatcher_report().at > first


def test_a_tick_that_fails_is_shown_and_the_next_one_is_tried(http, dispatcher, store, cluster, monkeypatch):
    """It used to end the process, again and again, while /readyz said that all was well."""
    real, broken = dispatcher.store.unsettled, threading.Event()
    broken.set()

    def unsettled():
        if broken.is_set():
            raise OverflowError("cannot convert float infinity to integer")
        return real()

    def dispatcher_health():
        monkeypatch.setattr("service.api.health.FRESH_SECONDS", 0.0)
        return http.get("/readyz").json()["components"]["dispatcher"]

    monkeypatch.setattr(dispatcher.store, "unsettled", unsettled)
    row, _ = store.submit(spec())
    stop = threading.Event()
    thread = threading.Thread(target=dispatcher.run, args=(stop,))
    thread.start()
    try:
        wait_until(lambda: not dispatcher_health()["ok"], "the failure in /readyz")
        assert "OverflowError" in Operations(store.database).dispatcher_report().trouble
        assert numbers(http)[("cbam_dispatcher_failed_ticks_total",)] >= 1
        broken.clear()
        wait_until(lambda: dispatcher_health()["ok"], "the recovery in /readyz")
        wait_until(lambda: store.get(row.id).state == State.SUCCEEDED, "the experiment to succeed")
    finally:
        stop.set()
        thread.join()


def test_the_pauses_between_ticks_that_fail_grow_and_have_an_end():
    report = DispatcherMetrics(lambda: 0.0)
    pauses = [report.tick_failed(ValueError("x")) for _ in range(2000)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1 < pauses[-1] < 10, "a lease lasts longer"


def test_a_cluster_that_is_away_is_told(http, dispatcher, cluster):
    cluster.reachable = False
    tick(dispatcher)
    assert numbers(http)[("cbam_cluster_reachable",)] == 0


def test_no_two_families_have_one_name(http, dispatcher):
    tick(dispatcher)
    names = re.findall(r"^# TYPE (\S+)", http.get("/metrics").text, re.MULTILINE)
    assert len(names) == len(set(names))
