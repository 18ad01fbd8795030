"""A real server in a process of its own, which strangers attack. At the end it must stand there unharmed."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from service.client.client import Client
from service.domain.roles import Role
from tests.support.ports import free_port
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until


@dataclass
class Target:
    """The server under attack, and what its owner knows of it."""

    port: int
    home: Path
    log: Path
    process: subprocess.Popen[bytes]
    admin: str = ""
    secrets: list[str] = field(default_factory=list)  # what must be in no log and in no answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.home / 'cbam.db'}"

    def token(self, name: str, role: Role = Role.USER) -> str:
        """A new token."""
        with Client(self.url, self.admin) as client:
            secret = client.create_token(name, role).secret
        self.secrets.append(secret)
        return secret

    def client(self, name: str, role: Role = Role.USER) -> httpx2.Client:
        """A browserless caller with a new token."""
        headers = {"Authorization": f"Bearer {self.token(name, role)}"}
        return httpx2.Client(base_url=self.url, headers=headers, timeout=30)

    def raw(self, data: bytes, *, seconds: float = 10.0) -> bytes:
        """What the server says to these bytes until it hangs up, or for so long."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            answer = b""
            try:
                connection.sendall(data)
                while chunk := connection.recv(65536):
                    answer += chunk
            except OSError:
                pass
        return answer


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with an admin's token; after the attack: nothing was lost, nothing failed, nothing was told."""
    home = tmp_path_factory.mktemp("hostile")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CBAM_", "RAY_"))} | {
        "CBAM_HOME": str(home),
        "CBAM_PORT": str(free_port()),
        "CBAM_BOOTSTRAP_TOKEN_FILE": str(home / "admin_token"),
        "CBAM_SLOW_CLIENT_SECONDS": "1.5",
        "CBAM_FAILED_LOGINS_PER_MINUTE": "100000",
        "CBAM_RATE_PER_SECOND": "100000",  # on a quick machine the tests would meet it, and not what they are about
        "CBAM_RATE_BURST": "100000",
        "CBAM_LOG_LEVEL": "DEBUG",
    }
    log = home / "api.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "service.api"], env=environment, stdout=out, stderr=out)
    server = Target(int(environment["CBAM_PORT"]), home, log, process)
    try:
        wait_until(lambda: _answers(server), "the server")
        server.admin = (home / "admin_token").read_text().strip()
        server.secrets.append(server.admin)
        with Client(server.url, server.admin) as client:
            kept = client.submit(spec_dict(name="kept"))
            yield server
            _assert_unharmed(server, client, kept.id)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _answers(server: Target) -> bool:
    assert server.process.poll() is None, server.log.read_text()
    try:
        return httpx2.get(f"{server.url}/healthz").is_success
    except httpx2.TransportError:
        return False


def _assert_unharmed(server: Target, client: Client, kept: str) -> None:
    assert server.process.poll() is None, "the server lives"
    assert client.view(kept).name == "kept"
    headers = {"Authorization": f"Bearer {server.admin}"}
    numbers = httpx2.get(f"{server.url}/metrics", headers=headers).text
    failures = re.findall(r'cbam_http_requests_total{.*status="5\d\d".*', numbers)
    assert not failures
    log = server.log.read_text(errors="replace")
    assert "Traceback" not in log
    assert not [secret for secret in server.secrets if secret in log]
