"""The API server. Importing this is light: no torch, no ray, no mlflow."""

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from anyio import CapacityLimiter
from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from fastapi_offline import FastAPIOffline

from service.api import file_stream, openapi, problems
from service.api.health import Probe
from service.api.live.experiments import ExperimentUpdates
from service.api.live.seats import Seats
from service.api.live.studies import StudyUpdates
from service.api.middleware.access_log import AccessLog
from service.api.middleware.authentication import Authentication
from service.api.middleware.head import HeadRequests
from service.api.middleware.metrics import RequestMetrics
from service.api.middleware.request_guard import RequestGuard
from service.api.middleware.security_headers import SecurityHeaders
from service.api.middleware.tracing import telemetry
from service.api.prometheus import ServiceMetrics, watching_loop
from service.api.query import only_known_query
from service.api.routers import (
    auth,
    bulk,
    catalog,
    cluster,
    comparison_streams,
    comparisons,
    downloads,
    experiments,
    files,
    health,
    history,
    pruning,
    streams,
    sweeps,
    webhooks,
)
from service.auth.audit import AuditLog
from service.auth.file_links import FileLinks
from service.auth.tokens import Tokens
from service.console.site import ROOT, ConsoleSite, read_files, to_console
from service.database.engine import Database
from service.database.operations import Operations
from service.errors import NoTokens
from service.experiments.files import ExperimentFiles
from service.experiments.store import ExperimentStore
from service.preview.profiler import NetworkProfiler
from service.settings import Settings
from service.studies.store import StudyStore
from service.webhooks.store import WebhookStore

log = logging.getLogger(__name__)
UNPROCESSABLE = 422  # a parameter that the route does not know, if nothing else
BODY_LIMIT_BYTES = 256 * 1024
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")
ROUTERS = (
    experiments,
    comparisons,
    comparison_streams,
    sweeps,
    bulk,
    pruning,
    history,
    files,
    downloads,
    streams,
    catalog,
    auth,
    webhooks,
    cluster,
    health,
)
DESCRIPTION = """
Does CBAM help on my data and backbone, by how much, at what cost? Submit an experiment spec, watch it train, review it
in MLflow. Errors are RFC 9457 `application/problem+json` with the JSON pointer of each field that is wrong.
"""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app, with its settings read once. `python -m service.api` runs it."""
    settings = settings or Settings()
    store = ExperimentStore(Database(settings.database_url))
    tokens = Tokens(store.database)
    audit = AuditLog(store.database, keep_days=settings.audit_days)
    operations = Operations(store.database)
    metrics = ServiceMetrics(operations)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(prepare, app)
        audit.start()
        async with watching_loop(metrics.loop_lag):
            yield
        await app.state.network_profiler.close()
        app.state.files.close()
        await run_in_threadpool(audit.close)
        store.database.close()

    app = FastAPIOffline(  # its page takes nothing from a network
        title="cbam-lab",
        version=version("cbam-lab"),
        description=DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,  # its page asks a foreign host for a logo
        generate_unique_id_function=openapi.operation_id,
        telemetry=telemetry(),
    )
    app.state.settings = settings
    app.state.store = store
    app.state.studies = StudyStore(store.database)
    app.state.operations = operations
    app.state.tokens = tokens
    app.state.audit = audit
    app.state.probe = Probe(operations, settings)
    app.state.webhooks = WebhookStore(store.database)
    app.state.metrics = metrics
    app.state.network_profiler = NetworkProfiler()
    app.state.closing = threading.Event()  # set at SIGTERM: what streams ends
    app.state.seats = Seats(settings.streams_per_caller)
    app.state.experiment_updates = ExperimentUpdates(store, settings.storage_root, app.state.closing)
    app.state.study_updates = StudyUpdates(app.state.studies, app.state.closing)
    _add_files(app, settings)
    problems.install(app)
    _add_routes(app)
    _add_console(app)
    openapi.install(app)
    _add_middleware(app, settings)
    return app


def _add_routes(app: FastAPI) -> None:
    """All routes of the REST interface; each refuses what it does not know in its query."""
    for module in ROUTERS:
        app.include_router(
            module.router, dependencies=[Depends(only_known_query)], responses=problems.documented(UNPROCESSABLE)
        )


def _add_console(app: FastAPI) -> None:
    """The web console, and the way to it from the root and from its own name without a slash."""
    for path in ("/", ROOT):
        app.add_api_route(path, to_console, include_in_schema=False, response_model=None)
    app.mount(ROOT, ConsoleSite(read_files()))


def _add_files(app: FastAPI, settings: Settings) -> None:
    """What sends the files of experiments."""
    app.state.files = ExperimentFiles(settings.storage_root, app.state.closing)
    app.state.file_links = FileLinks(app.state.store.database)
    app.state.file_threads = CapacityLimiter(file_stream.THREADS)


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    """What every request passes; the last one is the first."""
    hosts = {*LOOPBACK_HOSTS, settings.host, *settings.allowed_hosts}
    app.add_middleware(HeadRequests)
    app.add_middleware(Authentication, tokens=app.state.tokens, audit=app.state.audit, settings=settings)
    app.add_middleware(
        RequestGuard, hosts=hosts, body_limit_bytes=BODY_LIMIT_BYTES, slow_client_seconds=settings.slow_client_seconds
    )
    app.add_middleware(RequestMetrics, metrics=app.state.metrics)
    app.add_middleware(SecurityHeaders)
    app.add_middleware(AccessLog)


def prepare(app: FastAPI) -> None:
    """Bring the schema up to date, and make the first token where that was asked for; to do it twice is no harm.

    Raises NoTokens where the server could be reached from outside and anybody could come in.
    """
    settings: Settings = app.state.settings
    tokens: Tokens = app.state.tokens
    tokens.database.migrate()
    path = settings.bootstrap_token_file
    if path is not None and tokens.bootstrap(path):
        log.info("there was no token; an admin's is in %s", path)
    if not settings.on_loopback and not tokens.exist():
        raise NoTokens(
            f"{settings.host} can be reached from outside, and there is no token: run `cbam token create admin "
            "--role admin --local`, or set CBAM_BOOTSTRAP_TOKEN_FILE, or listen on 127.0.0.1"
        )
