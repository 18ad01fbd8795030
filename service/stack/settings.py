"""What a user may set about the local stack, beside the server's own settings."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field

from service.settings import Settings
from workers.protocol.storage import sync_file, sync_folder

Port = Annotated[int, Field(ge=1, le=65535)]
RAY_TEMP_ROOT = Path("/tmp")  # Ray's sockets lie deep below it, and their paths may have 107 characters


NOT_TAKEN = frozenset({
    *("home", "port", "mlflow_port", "ray_port"),  # the record's
    *("ray_address", "mlflow_tracking_uri"),  # the stack has its own
    *("start_patience_seconds", "stop_grace_seconds"),  # for the command itself
})  # fmt: skip
"""Settings that no part of a running stack goes by."""


def variable_of(name: str) -> str:
    """The environment variable of a setting."""
    return f"CBAM_{name.upper()}"


def _text(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return (":" if name == "data_roots" else ",").join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


class StackSettings(Settings):
    """The settings of `cbam up`. A port that is left out and taken gives way to the next free one."""

    mlflow_port: Port = 5001
    ray_port: Port = 6380
    ray_cpus: Annotated[int, Field(ge=1)] | None = Field(None, description="cores for workers; all, and at least two")
    standby_workers: Annotated[int, Field(ge=0, le=1024)] = Field(
        2, description="workers of one CPU that are kept ready for the next experiment, where there is room for them"
    )
    start_patience_seconds: Annotated[float, Field(gt=0)] = Field(180.0, description="for each part to answer")
    stop_grace_seconds: Annotated[float, Field(gt=0)] = Field(10.0, description="from SIGTERM to SIGKILL")

    @property
    def logs(self) -> Path:
        """One log file for each part."""
        return self.home / "logs"

    def wanted_ports(self) -> dict[str, tuple[int, bool]]:
        """For each part its port, and whether the user insists on it."""
        names = {"api": "port", "mlflow": "mlflow_port", "ray": "ray_port"}
        return {part: (getattr(self, name), name in self.model_fields_set) for part, name in names.items()}

    def taken(self) -> dict[str, str]:
        """What the parts of a running stack go by, as variables of their environment; the ports are chosen beside."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name not in NOT_TAKEN}
        return {variable_of(name): _text(name, value) for name, value in values.items() if value is not None}

    def chosen(self) -> list[str]:
        """Those of `taken` that the user has set, and not left to their defaults."""
        return [variable for name in sorted(self.model_fields_set) if (variable := variable_of(name)) in self.taken()]

    def keeping(self, kept: Mapping[str, str]) -> Self:
        """These settings, and for what the user leaves out those of a stack that runs, by their variables."""
        left_out = set(type(self).model_fields) - self.model_fields_set
        fields = {name: kept[variable] for name in left_out if (variable := variable_of(name)) in kept}
        read = type(self).model_validate(fields)
        return self.model_copy(update={name: getattr(read, name) for name in fields})

    def ray_token(self) -> str:
        """The secret of this stack's Ray, made at its first use and readable by its owner alone."""
        path = self.home / "ray_token"
        if not path.exists():
            draft = path.with_suffix(".new")
            draft.unlink(missing_ok=True)
            draft.touch(mode=0o600)
            draft.write_text(secrets.token_urlsafe(32))
            sync_file(draft)  # after a loss of power it must not be there, but empty
            draft.rename(path)
            sync_folder(self.home)
        return path.read_text().strip()
