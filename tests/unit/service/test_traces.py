"""One trace from the request to the first step, sent to a real receiver; and nothing of it where nobody asked."""

import subprocess
import sys

import pytest
from fastapi.testclient import TestClient

from cbam_core.spec import ExperimentSpec
from service.app import create_app
from service.gang import GangKey
from service.states import State
from tests.dispatching import until
from tests.otlp_receiver import receiving
from tests.specs import spec_dict
from tests.waiting import wait_until
from workers import spans
from workers.assignment import Assignment
from workers.run import run
from workers.stop import StopSignal

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def receiver(monkeypatch):
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        spans._tracer.cache_clear()
        yield receiver
        for process in ("api", "dispatcher", "worker"):  # while the receiver still listens
            spans._tracer(process).span_processor.shutdown()
        spans._tracer.cache_clear()


@pytest.fixture
def submitted(receiver, settings):
    """An experiment, submitted by a caller that has a trace already."""
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as http:
        headers = {"traceparent": f"00-{TRACE}-{CALLER}-01"}
        return http.post("/v1/experiments", json=spec_dict(), headers=headers).json()["id"]


def test_a_trace_goes_from_the_request_to_the_first_step(receiver, submitted, dispatcher, store, cluster, tmp_path):
    until(dispatcher, store, submitted, State.RUNNING)
    launch = cluster.gangs[GangKey(submitted, 1)].launch
    assignment = Assignment(submitted, 1, launch.token, launch.spec, str(tmp_path), traceparent=launch.traceparent)
    assert run(assignment, stop=StopSignal(), report=lambda _: None).outcome == "succeeded"

    wait_until(lambda: len(receiver.spans) >= 4, "four spans")
    request, *_ = receiver.named("POST /v1/experiments")
    assert (request.trace_id, request.parent_id, request.process) == (TRACE, CALLER, "cbam-api")
    (queue,) = receiver.named("dispatcher: queue")
    (start,) = receiver.named("dispatcher: start")
    (worker,) = receiver.named("worker: to the first step")
    assert {span.process for span in (queue, start)} == {"cbam-dispatcher"}
    assert worker.process == "cbam-worker"
    assert {(span.trace_id, span.parent_id) for span in (queue, start, worker)} == {(TRACE, request.span_id)}
    assert worker.events == ("the gang has met", "the data is loaded", "the network is built")
    assert worker.error == ""
    assert request.begin < queue.end <= start.begin <= start.end


def test_a_first_step_that_never_comes_is_an_error_with_its_reason(receiver, tmp_path):
    spec = ExperimentSpec.model_validate(spec_dict(data={"dataset": "cifar10", "root": str(tmp_path / "nothing-here")}))
    assignment = Assignment("failing", 1, "token", spec, str(tmp_path), data_roots=(str(tmp_path),))
    assert run(assignment, stop=StopSignal(), report=lambda _: None).reason == "DATA_ERROR"
    wait_until(lambda: receiver.spans, "a span")
    (worker,) = receiver.named("worker: to the first step")
    assert (worker.error, worker.events) == ("DATA_ERROR", ("the gang has met",))


def test_a_request_without_a_trace_begins_one(receiver, settings):
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as http:
        http.get("/v1/experiments")
        http.get("/healthz")  # probes make no traces
    wait_until(lambda: receiver.spans, "a span")
    (span,) = receiver.spans
    assert (span.name, span.parent_id) == ("GET /v1/experiments", "")


def test_without_an_endpoint_no_exporter_is_imported():  # FastAPI itself imports OpenTelemetry's small API
    code = (
        "import os, sys; os.environ.pop('OTEL_EXPORTER_OTLP_ENDPOINT', None); import service.app, workers.spans as s\n"
        "with s.span('x', 'api'): s.event('y')\n"
        "assert s.traceparent() is None; s.record('x', 'api', parent=None, begin=None, end=None)\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
