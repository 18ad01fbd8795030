"""One trace from the request to the first step, sent to a real receiver; and nothing of it where nobody asked."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient

from cbam_core.spec import ExperimentSpec
from service.api.app import create_app
from service.cluster.base import GangKey
from service.domain.states import State
from tests.support.dispatching import until
from tests.support.otlp_receiver import receiving
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until
from workers import tracing
from workers.attempt import run
from workers.protocol.assignment import Assignment
from workers.protocol.stop import StopSignal

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def receiver(monkeypatch):
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        tracing.provider.cache_clear()
        yield receiver
        for process in ("api", "dispatcher", "worker"):  # while the receiver still listens
            tracing.provider(process).shutdown()
        tracing.provider.cache_clear()


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
    assert not worker.failed
    assert request.begin < queue.end <= start.begin <= start.end


def test_a_first_step_that_never_comes_is_an_error_with_its_reason(receiver, tmp_path):
    spec = ExperimentSpec.model_validate(spec_dict(data={"dataset": "cifar10", "root": str(tmp_path / "nothing-here")}))
    assignment = Assignment("failing", 1, "token", spec, str(tmp_path), data_roots=(str(tmp_path),))
    assert run(assignment, stop=StopSignal(), report=lambda _: None).reason == "DATA_ERROR"
    wait_until(lambda: receiver.spans, "a span")
    (worker,) = receiver.named("worker: to the first step")
    assert (worker.failed, worker.error, worker.events) == (True, "DATA_ERROR", ("the gang has met",))


@contextmanager
def api(settings, receiver, *, spans_expected=1):
    """A client of an app with traces; at its end all spans have arrived."""
    with TestClient(create_app(settings), base_url="http://127.0.0.1", raise_server_exceptions=False) as http:
        yield http
    tracing.provider("api").force_flush()
    assert len(receiver.spans) == spans_expected


def test_a_request_without_a_trace_begins_one(receiver, settings):
    with api(settings, receiver) as http:
        answer = http.get("/v1/experiments")
        http.get("/healthz")  # probes make no traces
    (span,) = receiver.spans
    assert (span.name, span.parent_id, span.failed) == ("GET /v1/experiments", "", False)
    assert span.attributes["http.route"] == "/v1/experiments"
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["cbam.request_id"] == answer.headers["X-Request-ID"]


def test_a_query_stays_out_of_the_trace(receiver, settings):
    with api(settings, receiver) as http:
        http.get("/v1/experiments?q=hunter2&limit=3")
    assert "url.query" not in receiver.spans[0].attributes
    assert not any(b"hunter2" in body for body in receiver.bodies)


def test_a_500_is_an_error_with_its_exception_and_without_secrets(receiver, settings, monkeypatch):
    token = "cbam_" + "a" * 43

    def broken(*_args, **_kwargs):
        raise RuntimeError(f"no way with {token}")

    monkeypatch.setattr("service.experiments.store.ExperimentStore.get", broken)
    with api(settings, receiver) as http:
        assert http.get("/v1/experiments/abc").status_code == 500
    (span,) = receiver.spans
    assert (span.name, span.failed) == ("GET /v1/experiments/{experiment_id}", True)
    assert (span.attributes["error.type"], span.attributes["http.response.status_code"]) == ("RuntimeError", 500)
    (exception,) = span.exceptions
    assert (exception["exception.type"], exception["exception.message"]) == (
        "RuntimeError",
        "no way with cbam_[secret]",
    )
    assert "in broken" in exception["exception.stacktrace"]
    assert not any(token.encode() in body for body in receiver.bodies)


@pytest.mark.parametrize("path", ["/v1/experiments/abc", "/v1/experiments?limit=x", "/nowhere"])
def test_what_the_caller_did_wrong_is_no_error(receiver, settings, path):
    with api(settings, receiver) as http:
        assert 400 <= http.get(path).status_code < 500
    (span,) = receiver.spans
    assert (span.failed, span.exceptions) == (False, ())


def test_a_stream_makes_no_span_of_hours(receiver, settings):
    with api(settings, receiver, spans_expected=2) as http:  # of the submission and the cancel
        row = http.post("/v1/experiments", json=spec_dict()).json()
        http.post(f"/v1/experiments/{row['id']}/cancel")
        http.app.state.closing.set()  # ends the stream
        assert http.get(f"/v1/experiments/{row['id']}/events/stream").status_code == 200


@pytest.mark.parametrize("flag", ["00", "01"])
def test_the_callers_decision_whether_to_record_is_kept(receiver, settings, flag):
    with api(settings, receiver, spans_expected=int(flag)) as http:
        http.get("/v1/whoami", headers={"traceparent": f"00-{TRACE}-{CALLER}-{flag}"})


def test_the_sampler_of_the_environment_decides(receiver, settings, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with api(settings, receiver, spans_expected=0) as http:
        assert http.get("/v1/whoami").status_code == 200


def test_without_an_endpoint_no_exporter_is_imported():  # FastAPI itself imports OpenTelemetry's small API
    code = (
        "import os, sys; os.environ.pop('OTEL_EXPORTER_OTLP_ENDPOINT', None); \n"
        "import service.api.app, workers.tracing as s\n"
        "s.event('y'); s.annotate(z=1); service.api.app.create_app\n"
        "from service.api.middleware.tracing import telemetry\n"
        "assert telemetry()['tracing'] is False\n"
        "assert s.traceparent() is None; s.record('x', 'api', parent=None, begin=None, end=None)\n"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.exporter'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
