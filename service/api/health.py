"""What the service stands on, and whether it answers."""

import socket
import threading
import time
from urllib.parse import urlsplit

import httpx2
from sqlalchemy.exc import SQLAlchemyError

from service.database.lease import current_leader
from service.database.operations import Operations
from service.database.outages import Unusable
from service.redaction import redact, without_login
from service.schemas.health import ComponentHealth, Readiness
from service.settings import Settings
from workers.protocol.addresses import mounts_for

PROBE_SECONDS = 2.0
FRESH_SECONDS = 1.0


class Probe:
    """Looks at the components no more than once a second, whoever asks: strangers may, and a look reaches out."""

    def __init__(self, operations: Operations, settings: Settings) -> None:
        self._operations = operations
        self._settings = settings
        self._lock = threading.Lock()
        self._seen: tuple[float, Readiness] | None = None

    def look(self) -> Readiness:
        """What was seen within the last second; while somebody looks, what was seen before."""
        seen = self._seen
        if seen is not None and time.monotonic() - seen[0] < FRESH_SECONDS:
            return seen[1]
        if self._lock.acquire(blocking=seen is None):
            try:
                seen = self._seen if seen is None and self._seen is not None else self._look()
            finally:
                self._lock.release()
        assert seen is not None
        return seen[1]

    def _look(self) -> tuple[float, Readiness]:
        answer = readiness(self._operations, self._settings)
        self._seen = time.monotonic(), answer
        return self._seen


def readiness(operations: Operations, settings: Settings) -> Readiness:
    """Look at each component. Only the database makes the service unready."""
    database = _database(operations)
    components = {"database": database, "ray": _ray(settings), "mlflow": _mlflow(settings)}
    if database.ok:
        components["dispatcher"] = _dispatcher(operations)
    degraded = sorted(name for name, health in components.items() if not health.ok and name != "database")
    return Readiness(ready=database.ok, degraded=degraded, components=components)


def _database(operations: Operations) -> ComponentHealth:
    try:
        operations.ping()
    except SQLAlchemyError as error:
        words = f"{error.words}: " if isinstance(error, Unusable) else ""
        return ComponentHealth(ok=False, detail=words + redact(str(error).splitlines()[0]))
    return ComponentHealth(ok=True)


def _dispatcher(operations: Operations) -> ComponentHealth:
    leader = current_leader(operations.database)
    if leader is None:
        return ComponentHealth(ok=False, detail="no dispatcher leads; experiments wait in the queue")
    report = operations.dispatcher_report()
    if report is not None and report.holder == leader and report.trouble:
        return ComponentHealth(ok=False, detail=f"{leader} cannot finish its work: {redact(report.trouble)}")
    return ComponentHealth(ok=True, detail=leader)


def _ray(settings: Settings) -> ComponentHealth:
    """The head's port answers. Whether the cluster is well is the dispatcher's to find out: it holds the connection."""
    if not settings.ray_address:
        return ComponentHealth(ok=False, detail="RAY_ADDRESS is not set")
    parts = urlsplit(f"//{settings.ray_address}")
    try:
        socket.create_connection((parts.hostname or "", parts.port or 6379), timeout=PROBE_SECONDS).close()
    except (OSError, ValueError) as error:
        return ComponentHealth(ok=False, detail=f"{settings.ray_address}: {error}")
    return ComponentHealth(ok=True, detail=settings.ray_address)


def _mlflow(settings: Settings) -> ComponentHealth:
    uri = settings.mlflow_tracking_uri
    if uri is None:
        return ComponentHealth(ok=False, detail="MLFLOW_TRACKING_URI is not set; runs are not recorded")
    if not uri.startswith("http"):
        return ComponentHealth(ok=True, detail=without_login(uri))
    try:
        with httpx2.Client(timeout=PROBE_SECONDS, mounts=mounts_for(uri)) as http:
            http.get(f"{uri}/health").raise_for_status()
    except httpx2.HTTPError as error:
        return ComponentHealth(ok=False, detail=redact(f"{uri}: {error}"))
    return ComponentHealth(ok=True, detail=without_login(uri))
