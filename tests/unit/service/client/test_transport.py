"""What the client asks again and what never, against a real server that fails in every way."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from random import Random

import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from service.client import errors, transport
from service.client.client import Client
from tests.support.live_server import serving
from tests.support.receiver import receiving
from tests.support.specs import spec_dict


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(transport, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(transport, "LONGEST_PAUSE_SECONDS", 0.05)


@contextmanager
def server(*answers: Response) -> Iterator[tuple[Client, list[Request]]]:
    """Gives these answers one after the other, whatever it is asked; the last one again and again."""
    asked: list[Request] = []
    left = list(answers)

    async def answer(request: Request) -> Response:
        asked.append(request)
        return left.pop(0) if len(left) > 1 else left[0]

    routes = [Route("/{path:path}", answer, methods=["GET", "POST", "PATCH", "DELETE"])]
    with serving(Starlette(routes=routes)) as url, Client(url, tries=4) as client:
        yield client, asked


def problem(status: int, **headers: str) -> JSONResponse:
    return JSONResponse({"title": "no", "detail": "not now"}, status_code=status, headers=headers)


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_a_server_on_this_machine_is_asked_without_the_proxy(monkeypatch, name):
    for unwanted in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(unwanted, raising=False)
    monkeypatch.setenv(name, "http://127.0.0.1:9")
    with server(JSONResponse({"items": []})) as (client, asked):
        assert client.attentions().items == []
    assert len(asked) == 1


READY = {"ready": True, "degraded": [], "components": {}}


def calls(client: Client, name: str) -> None:
    {
        "get": client.attentions,
        "submit": lambda: client.submit(spec_dict()),
        "cancel": lambda: client.cancel("x"),
        "retry": lambda: client.retry("x"),
        "delete": lambda: client.delete("x"),
        "update": lambda: client.update("x", priority=1),
        "update with version": lambda: client.update("x", priority=1, version=3),
        "create token": lambda: client.create_token("ada"),
    }[name]()


@pytest.mark.parametrize("name", ["get", "submit", "cancel", "update"])
def test_what_does_no_harm_twice_is_asked_again_while_the_server_is_not_ready(name):
    with server(problem(503)) as (client, asked), pytest.raises(errors.NotReady):
        calls(client, name)
    assert len(asked) == 4


@pytest.mark.parametrize("name", ["retry", "delete", "update with version", "create token"])
def test_what_might_happen_twice_is_asked_once(name):
    with server(problem(503)) as (client, asked), pytest.raises(errors.NotReady):
        calls(client, name)
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["get", "delete", "create token"])
def test_what_was_turned_away_at_the_door_is_always_asked_again(name):
    with server(problem(429)) as (client, asked), pytest.raises(errors.TooMany):
        calls(client, name)
    assert len(asked) == 4


def test_every_repetition_of_a_submission_bears_the_same_key():
    with server(problem(503)) as (client, asked), pytest.raises(errors.NotReady):
        client.submit(spec_dict())
    assert len({request.headers["Idempotency-Key"] for request in asked}) == 1


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_obeyed(form):
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)  # a server may take a second to start
    wish = "1" if form == "seconds" else format_datetime(at, usegmt=True)
    with server(problem(429, **{"Retry-After": wish}), JSONResponse(READY)) as (client, _):
        began = time.monotonic()
        assert client.ready().ready
        if form == "seconds":
            assert time.monotonic() - began > 0.5
        else:
            assert datetime.now(UTC) > at - timedelta(seconds=0.1)


@pytest.fixture
def waits(monkeypatch):
    """The seconds that a client with a seed waits before its tries run out; no time passes."""

    def seconds_of(seed: int, retry_after: float | None = None, tries: int = 8) -> list[float]:
        slept: list[float] = []
        pauses = transport.Backoff(tries, Random(seed))
        with monkeypatch.context() as patch:
            patch.setattr(transport, "FIRST_PAUSE_SECONDS", 0.2)
            patch.setattr(transport, "LONGEST_PAUSE_SECONDS", 5.0)
            patch.setattr(transport.time, "sleep", slept.append)
            pauses.renew()
            while pauses.another(retry_after):
                pass
        return slept

    return seconds_of


def test_each_wait_is_drawn_from_the_upper_half_of_an_interval_that_doubles(waits):
    intervals = [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    drawn = [waits(seed) for seed in range(200)]
    for interval, seconds in zip(intervals, zip(*drawn, strict=True), strict=True):
        assert interval / 2 <= min(seconds) < interval * 0.55
        assert interval * 0.95 < max(seconds) <= interval


def test_clients_that_were_cut_off_together_come_back_apart(waits):
    first = sorted(waits(seed)[0] for seed in range(200))
    assert len(set(first)) == 200
    assert max(later - earlier for earlier, later in pairwise(first)) < 0.01, "no two crowds with a gap between them"


def test_a_seed_repeats_the_waits(waits):
    assert waits(7) == waits(7) != waits(8)


@pytest.mark.parametrize("retry_after", [0.0, 1.0, 30.0])
def test_retry_after_is_the_least_that_is_waited_and_jitter_comes_on_top(waits, retry_after):
    drawn = [waits(seed, retry_after)[0] for seed in range(200)]
    assert retry_after <= min(drawn) < max(drawn) <= retry_after + 0.1
    assert len(set(drawn)) == 200


def test_a_long_wish_is_the_callers_to_obey():
    with server(problem(429, **{"Retry-After": "3600"})) as (client, asked), pytest.raises(errors.TooMany) as refusal:
        client.attentions()
    assert (len(asked), refusal.value.retry_after) == (1, 3600)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.NotAuthenticated),
        (403, errors.NotAllowed),
        (404, errors.NotFound),
        (409, errors.NotNow),
        (410, errors.Gone),
        (412, errors.ChangedMeanwhile),
        (422, errors.NotUsable),
        (418, errors.ApiError),
    ],
)
def test_each_refusal_has_its_name_and_the_servers_words(status, kind):
    with server(problem(status, **{"X-Request-ID": "r1"})) as (client, asked), pytest.raises(kind) as refusal:
        client.view("x")
    assert type(refusal.value) is kind
    assert str(refusal.value) == "not now"
    assert refusal.value.request_id == "r1"
    assert len(asked) == 1


def test_a_call_that_changes_something_is_not_repeated_where_the_connection_broke_after_it_was_sent():
    """The server may have done it: it took the request, and then died."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def take() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    taken.append(connection.recv(65536))

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", tries=3) as client:
            with pytest.raises(errors.ServerUnreachable):
                client.delete("x")
            assert len(taken) == 1
            with pytest.raises(errors.ServerUnreachable):
                client.view("x")
            assert len(taken) == 4
    thread.join(timeout=10)


def test_a_stream_outlives_a_server_that_is_not_ready_for_a_while():
    async def lines() -> AsyncIterator[str]:
        yield "id: 1\ndata: one\n\n"
        yield 'event: end\ndata: {"state": "SUCCEEDED"}\n\n'

    stream = StreamingResponse(lines(), media_type="text/event-stream")
    with server(problem(503), problem(503, **{"Retry-After": "0"}), stream) as (client, asked):
        assert list(client.follow_logs("x")) == ["one"]
    assert len(asked) == 3


def test_a_quiet_stream_may_be_cut_for_hours_as_long_as_heartbeats_come():
    """A load balancer ends every connection after minutes; between two changes of state there may be hours."""
    heartbeat, cuts = Response(": ping\n\n", media_type="text/event-stream"), 30
    end = Response("id: 1\ndata: one\n\nevent: end\ndata: {}\n\n", media_type="text/event-stream")
    with server(*[heartbeat] * cuts, end) as (client, asked):
        assert list(client.follow_logs("x")) == ["one"]
    assert len(asked) == cuts + 1


def test_a_stream_that_never_says_anything_is_given_up():
    torn = Response("id: 1\ndata: torn", media_type="text/event-stream")
    with server(torn) as (client, asked), pytest.raises(errors.ServerUnreachable):
        list(client.follow_logs("x"))
    assert len(asked) == 4 * transport.PATIENCE


def test_who_waits_for_an_end_outlasts_a_restart_of_the_server_and_a_single_look_does_not():
    with server(problem(503)) as (client, asked):
        with pytest.raises(errors.NotReady):
            client.view("x")
        assert len(asked) == 4
        with pytest.raises(errors.NotReady):
            client.view("x", patiently=True)
        assert len(asked) == 4 + 4 * transport.PATIENCE


def test_a_redirect_is_not_followed_as_the_token_would_go_along():
    elsewhere = Response(status_code=307, headers={"Location": "http://elsewhere.example/"})
    with server(elsewhere) as (client, asked), pytest.raises(errors.ApiError, match="answers 307") as refusal:
        client.view("x")
    assert (refusal.value.status, len(asked)) == (307, 1)


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    with receiving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        with Client("http://cbam.example:8000", tries=1) as client, pytest.raises(ValidationError):
            client.resume("x")  # the proxy answers 204, which is no experiment
    assert [path for path, *_ in proxy.requests] == ["http://cbam.example:8000/v1/experiments/x/resume"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls_trusts_the_certificates_that_the_environment_names_and_no_others(tmp_path, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    name = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]
    subprocess.run([*request, *name], check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with receiving(tls) as receiver:
        with Client(receiver.url, tries=1) as client, pytest.raises(errors.ServerUnreachable, match="certificate"):
            client.resume("x")
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with Client(receiver.url, tries=1) as client, pytest.raises(ValidationError):  # 204 is no experiment
            client.resume("x")
    assert [path for path, *_ in receiver.requests] == ["/v1/experiments/x/resume"]


def test_an_id_or_a_name_never_leaves_its_place_in_the_path():
    with server(problem(404)) as (client, asked):
        for call in (client.view, client.revoke_token, client.template):
            with pytest.raises(errors.NotFound):
                call("../x?y=#z")
    paths = [request.scope["raw_path"].split(b"?")[0] for request in asked]
    assert paths[:2] == [b"/v1/experiments/..%2Fx%3Fy%3D%23z", b"/v1/tokens/..%2Fx%3Fy%3D%23z"]
    assert paths[2].endswith(b"/x%3Fy%3D%23z")


@pytest.mark.parametrize("token", ["…", "a\nb"])
def test_what_can_be_no_token_is_refused_before_anything_is_sent(token):
    with pytest.raises(errors.BadToken, match="CBAM_TOKEN"):
        Client("http://127.0.0.1:1", token)
