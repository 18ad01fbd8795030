"""Everything the operator may set, read once from the environment into one frozen object."""

import hashlib
import os
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from cbam_core.suggestions import did_you_mean
from service.home import DEFAULT_HOME, absolute
from service.log_format import LogFormat
from service.redaction import without_login
from workers.protocol.addresses import host_and_port, is_loopback

PREFIX = "CBAM_"
ELSEWHERE = frozenset({
    *("URL", "TOKEN", "PUBLIC_URL"),  # the command and the client
    *("MLFLOW_PORT", "RAY_PORT", "RAY_CPUS", "START_PATIENCE_SECONDS", "STOP_GRACE_SECONDS", "STACK_ID"),  # `cbam up`
    *("GIT_COMMIT", "TRACKING_CLOSE_SECONDS"),  # workers
    *("API_MEMORY", "BIND", "DATA", "DATABASE_PASSWORD", "DB_MEMORY", "DISPATCHER_MEMORY", "DRAIN_SECONDS", "ENV_FILE"),
    *("GPU_WORKER_CPUS", "GPU_WORKER_GPUS", "GPU_WORKER_MEMORY", "HEAD_MEMORY", "IMAGE", "MLFLOW_MEMORY", "NETWORK"),
    *("OBJECT_STORE_BYTES", "OPEN_FILES", "PART", "STORAGE_DEVICE", "STORAGE_OPTIONS", "STORAGE_TYPE"),
    *("WORKERS", "WORKER_CPUS", "WORKER_GPUS", "WORKER_MEMORY", "WORKER_SHM", "COMPOSE_KEEP", "WHEELS"),  # containers
    *("CHAOS_DATABASE", "CHAOS_SEED", "CHAOS_SOAK", "CLIENT_GENERATOR", "FUZZ_EXAMPLES"),  # tests
    *("REQUIRE_BROWSER", "REQUIRE_POSTGRES", "TEST_SEED"),
})  # fmt: skip
"""Variables with our prefix that others read than the server and the dispatcher, without the prefix."""


class Settings(BaseSettings):
    """The settings of the server and of the dispatcher. Prefix `CBAM_`, and the ecosystem's own names."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", populate_by_name=True)

    home: Path = Field(DEFAULT_HOME, description="folder of the local stack: database, logs, storage, process ids")
    database_url: str = Field("", description="SQLAlchemy URL; a SQLite file in the home folder where left empty")
    storage: Path | None = Field(None, description="root of checkpoints and logs, shared by all nodes; home/storage")
    data_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="folders a spec may read datasets from, separated by colons"
    )
    allow_download: bool = Field(False, description="whether a spec may have its dataset downloaded below a data root")
    host: str = Field("127.0.0.1", description="address the API listens on; beyond loopback only once there is a token")
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="names by which users reach the API (the Host header), separated by commas"
    )
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="addresses or networks of reverse proxies, separated by commas: of what one of them forwards, "
        "X-Forwarded-For says whose it is; any other proxy is one client, whoever stands behind it",
    )
    bootstrap_token_file: Path | None = Field(
        None,
        description="where there is no token yet, the first start leaves an admin's here, or takes the one it finds",
    )
    rate_per_second: Annotated[float, Field(gt=0)] = Field(
        50.0, description="requests of one token, in the long run; each server process counts for itself"
    )
    rate_burst: Annotated[int, Field(ge=1)] = Field(200, description="requests of one token at once")
    streams_per_caller: Annotated[int, Field(ge=1)] = Field(
        100, description="logs and events that one caller may follow at once; each server process counts for itself"
    )
    failed_logins_per_minute: Annotated[int, Field(ge=1)] = Field(
        20, description="requests of one address without a good token; then those wait, good tokens do not"
    )
    slow_client_seconds: Annotated[float, Field(gt=0)] = Field(
        20.0, description="for the head of a request, and as long again for its body, to come"
    )
    webhook_allow_private: bool = Field(
        False, description="webhooks may go to addresses that are not on the public internet"
    )
    audit_days: Annotated[int, Field(ge=1, le=36500)] = Field(365, description="audit events are kept so long")
    ray_address: str = Field("", alias="RAY_ADDRESS", description="host:port of the Ray head; the local stack's")
    ship_code: bool = Field(
        False, description="send our own code to the workers: for a Ray cluster that has torch, but no cbam-lab"
    )
    ray_namespace: str = Field("", description="holds this service's workers; made from the database's URL if empty")
    mlflow_tracking_uri: str | None = Field(None, alias="MLFLOW_TRACKING_URI")
    mlflow_public_url: str | None = Field(
        None, description="where people reach MLflow; the tracking URI where left out"
    )
    tick_seconds: Annotated[float, Field(gt=0)] = Field(0.2, description="pause between two looks of the dispatcher")
    lease_seconds: Annotated[float, Field(gt=0)] = Field(
        10.0, description="a dispatcher that is silent this long loses"
    )
    linger_seconds: Annotated[float, Field(ge=0)] = Field(60.0, description="workers wait so long for another attempt")
    standby_workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="workers of one CPU that are kept ready for the next experiment, where there is room for them"
    )
    standby_pause_seconds: Annotated[float, Field(ge=0)] = Field(
        60.0, description="from the death of a worker on standby to the start of another one"
    )
    cancel_grace_seconds: Annotated[float, Field(ge=0)] = Field(15.0, description="from asking a worker to killing it")
    start_timeout_seconds: Annotated[float, Field(gt=0)] = Field(300.0, description="from the claim to the first step")
    hang_seconds: Annotated[float, Field(gt=0)] = Field(
        300.0, description="no sign of life this long, or 10 steps, is a hang"
    )
    dead_after_seconds: Annotated[float, Field(ge=0)] = Field(2.0, description="a gang seen dead for this long is dead")
    dead_after_looks: Annotated[int, Field(ge=1)] = Field(3, description="and seen dead this many times in a row")
    most_passes: Annotated[int, Field(ge=0)] = Field(
        20, description="how often others may pass one that waits for room"
    )
    quota_cpus: Annotated[float, Field(gt=0)] | None = Field(None, description="CPUs one user may hold at once")
    quota_gpus: Annotated[float, Field(gt=0)] | None = Field(None, description="GPUs one user may hold at once")
    quota_disk: Annotated[ByteSize, Field(gt=0)] | None = Field(
        None, description="bytes of files one user may keep on shared storage, or 500GB, 2TiB: beyond them nothing new"
    )
    retry_backoff_seconds: Annotated[float, Field(ge=0)] = Field(
        2.0, description="doubles with each retry, to 5 minutes"
    )
    log_format: LogFormat = Field("logfmt", description="one line for each record of the log: logfmt or json")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("data_roots", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part for part in value.split(":") if part) if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(network)) for network in value)

    @field_validator("allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _names(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return tuple(name for part in value.split(",") if (name := part.strip().lower()))

    @field_validator("host")
    @classmethod
    def _address(cls, value: str) -> str:
        if value != "localhost":
            ip_address(value)  # raises ValueError
        return value

    @model_validator(mode="after")
    def _fill(self) -> Self:
        home = absolute(self.home, "CBAM_HOME")
        values = {
            "home": home,
            "database_url": self.database_url or _sqlite_url(home / "cbam.db"),
            "storage": absolute(self.storage or home / "storage", "CBAM_STORAGE"),
            "data_roots": tuple(absolute(root, "CBAM_DATA_ROOTS") for root in self.data_roots),
            "ray_namespace": self.ray_namespace or f"cbam-{_fingerprint(self.database_url or str(home))}",
            "mlflow_public_url": self.mlflow_public_url or without_login(self.mlflow_tracking_uri or "") or None,
        }
        self.__dict__.update(values)  # the one place that may: the object has not left its constructor
        return self

    @property
    def storage_root(self) -> Path:
        """The storage root, filled in."""
        assert self.storage is not None
        return self.storage

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the API."""
        return is_loopback(self.host)

    @property
    def url(self) -> str:
        """Where the API answers."""
        return f"http://{host_and_port(self.host, self.port)}"


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """A line for each variable with our prefix that nothing reads: its name, and what may be meant by it."""
    known = {PREFIX + name for name in ELSEWHERE} | {PREFIX + name.upper() for name in Settings.model_fields}
    return [
        f"{name} is set, and no setting has this name{did_you_mean(name.upper(), sorted(known), most=1)}"
        for name in sorted(environment)
        if name.upper().startswith(PREFIX) and name.upper() not in known
    ]


def _sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of a SQLite file, whatever characters its path has: `?` would begin the options."""
    quoted = str(path).replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{quoted}"


def _fingerprint(text: str) -> str:
    """Eight characters that tell two services on one Ray cluster apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]
