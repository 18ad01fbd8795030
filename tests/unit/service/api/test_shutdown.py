"""SIGTERM: the API finishes what it answers and ends what it streams; the dispatcher lets another one lead at once."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx2
import pytest

from service.api.server import DRAIN_SECONDS
from service.auth.audit import AuditLog
from service.auth.tokens import Tokens
from service.database.lease import current_leader
from service.domain.roles import Role
from service.experiments.store import ExperimentStore
from service.schemas.auth import TokenRequest
from tests.support.ports import free_port
from tests.support.specs import spec
from tests.support.waiting import wait_until


@contextmanager
def process(module, settings, **more):
    """A part of the service in a process of its own; its log is on stderr."""
    environment = os.environ | {
        "CBAM_HOME": str(settings.home),
        "CBAM_DATABASE_URL": settings.database_url,
        "CBAM_LOG_FORMAT": "json",
        **more,
    }
    environment.pop("RAY_ADDRESS", None)
    with subprocess.Popen([sys.executable, "-m", module], env=environment, stderr=subprocess.PIPE, text=True) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def test_the_api_ends_its_streams_and_leaves_with_code_0(settings, database):
    row, _ = ExperimentStore(database).submit(spec())
    port = free_port()
    with process("service.api", settings, CBAM_PORT=str(port)) as child:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(url), "the API")
        with httpx2.stream("GET", f"{url}/v1/experiments/{row.id}/events/stream", timeout=30) as stream:
            chunks = stream.iter_text()
            first = next(chunks)
            child.send_signal(signal.SIGTERM)
            began = time.monotonic()
            rest = "".join(chunks)  # ends by itself, and whole: a cut body would raise
            assert time.monotonic() - began < DRAIN_SECONDS, "it ended before uvicorn would have cut it"
        assert "event: move" in first
        assert "event: end" not in rest  # the experiment has not ended: a client takes the stream up again
        _, log = child.communicate(timeout=60)
        assert child.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["process"] for line in lines} == {"api"}
    assert any(line["logger"] == "service.access" and line["experiment_id"] == row.id for line in lines)


def test_the_dispatcher_gives_its_lease_back(settings, database):
    with process("service.dispatcher", settings) as child:
        wait_until(lambda: current_leader(database), "a leader")
        child.send_signal(signal.SIGTERM)
        _, log = child.communicate(timeout=30)
        assert child.returncode == 0
    assert current_leader(database) is None  # long before the lease's 10 s
    assert any(json.loads(line)["message"].endswith("leads") for line in log.splitlines())


@pytest.mark.parametrize(("trusted", "address"), [("", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.7")])
def test_what_a_proxy_says_counts_only_where_it_is_trusted(settings, database, trusted, address):
    Tokens(database).create(TokenRequest(name="ada", role=Role.ADMIN), by="test")
    port = free_port()
    with process("service.api", settings, CBAM_PORT=str(port), CBAM_TRUSTED_PROXIES=trusted):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(url), "the API")
        headers = {"X-Forwarded-For": "203.0.113.7", "Authorization": "Bearer cbam_wrong"}
        assert httpx2.get(f"{url}/v1/experiments", headers=headers).status_code == 401

        def noted():
            return [entry.address for entry in AuditLog(database, keep_days=1).page(actor=None, before=None, limit=10)]

        wait_until(lambda: noted() == [address], f"the audit to say {address}")


def _answers(url):
    try:
        return httpx2.get(f"{url}/healthz").is_success
    except httpx2.TransportError:
        return False
