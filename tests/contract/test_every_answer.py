"""Thousands of requests made from the API's own description, over the real app: no 5xx, every answer as documented.

`CBAM_FUZZ_EXAMPLES` sets the requests for each operation (12 of every kind in the suite); `scripts/fuzz` asks for more.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings
from schemathesis import checks
from schemathesis.generation import GenerationMode

from service.api.app import create_app
from service.auth.tokens import Tokens
from service.domain.roles import Role
from service.preview.profiler import Measured, NetworkProfiler
from service.schemas.auth import TokenRequest
from service.settings import Settings
from tests.support.live_server import serving
from tests.support.postgresql import PostgresServer
from tests.support.specs import spec_dict

EXAMPLES = int(os.environ.get("CBAM_FUZZ_EXAMPLES", "12"))
TIME = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="CBAM_FUZZ_EXAMPLES" not in os.environ,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
"""The same requests at every run of the suite; others at every run of scripts/fuzz."""
DESCRIBED = schemathesis.openapi.from_path(Path(__file__).parents[2] / "docs" / "openapi.json")
DESCRIBED.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
DESCRIBED = DESCRIBED.exclude(path_regex="/stream$")  # they end with the experiment: test_streams.py
FEWER = settings(TIME, max_examples=max(1, EXAMPLES // 4), phases=[Phase.generate])
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


async def _measure(_self: NetworkProfiler, *_args: object, **_kwargs: object) -> Measured:
    """Building every network that a fuzzer thinks of is another test's."""
    return Measured(1000, 1000, (), kept_bytes_per_image=1000, largest_kept_bytes=100)


@dataclass(frozen=True)
class Server:
    """Where it is, and what an admin and a viewer say to be let in."""

    url: str
    admin: dict[str, str]
    viewer: dict[str, str]


@pytest.fixture(
    scope="module",
    params=["sqlite", pytest.param("postgresql", marks=[pytest.mark.postgresql, pytest.mark.slow])],
)
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """What one database stores another one may refuse: text and numbers have other limits."""
    if request.param == "sqlite":
        yield ""
        return
    server: PostgresServer = request.getfixturevalue("postgresql")
    with server.database(template=request.getfixturevalue("migrated")) as url:
        yield url


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Server]:
    """A server with tokens and a few experiments, and nothing that keeps a fuzzer waiting."""
    home = tmp_path_factory.mktemp("fuzz")
    patch = pytest.MonkeyPatch()
    patch.setattr(NetworkProfiler, "measure", _measure)
    rates = {"rate_per_second": 1e6, "rate_burst": 10**6}
    app = create_app(Settings(home=home, database_url=database_url, data_roots=(home,), **rates))
    with serving(app) as url:
        keys = {role: _bearer(app, role) for role in (Role.ADMIN, Role.VIEWER)}
        for index in range(3):
            body = spec_dict(name=f"n{index}")
            httpx2.post(f"{url}/v1/experiments", json=body, headers=keys[Role.ADMIN]).raise_for_status()
        httpx2.get(f"{url}/v1/whoami", headers=keys[Role.VIEWER]).raise_for_status()  # known before strangers come
        yield Server(url, keys[Role.ADMIN], keys[Role.VIEWER])
    patch.undo()
    asked = sum(one.value for one in app.state.metrics.requests.collect()[0].samples if one.name.endswith("_total"))
    print(f"{asked:.0f} requests")


def _bearer(app: FastAPI, role: Role) -> dict[str, str]:
    _, secret = Tokens(app.state.store.database).create(TokenRequest(name=f"the-{role}", role=role), by="test")
    return {"Authorization": f"Bearer {secret}"}


@DESCRIBED.parametrize()
@TIME
def test_every_answer_is_as_documented(case: schemathesis.Case, server: Server):
    case.call_and_validate(base_url=server.url, checks=CHECKS, headers=server.admin)


@DESCRIBED.parametrize()
@FEWER
def test_every_refusal_of_strangers_and_viewers_is_as_documented(case: schemathesis.Case, server: Server):
    """What would change something is refused to both, whatever is asked; strangers that hurry get 429."""
    for headers, refusals in (({}, {401, 405, 429}), (server.viewer, {400, 403, 404, 405, 408, 413, 415, 422, 429})):
        answer = case.call_and_validate(base_url=server.url, checks=CHECKS, headers=headers)
        if case.method.upper() != "GET" and case.path != "/v1/experiments/preview":
            assert answer.status_code in refusals, answer.text
