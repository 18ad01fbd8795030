"""How far an attempt is: what a worker says when it is asked."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

Phase = Literal["idle", "starting", "training", "evaluating", "stopping", "ended"]


@dataclass(frozen=True)
class Progress:
    """A moment of one attempt. `metrics` holds the last value of each, by the names MLflow shows."""

    phase: Phase = "idle"
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    epochs: int = 0
    images_per_second: float | None = None
    eta_seconds: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    message: str = ""
    heartbeat: float = 0.0  # unix seconds
    mlflow_run_id: str | None = None
    mlflow_experiment_id: str | None = None  # that the run is in

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Back from `to_dict`."""
        return cls(**value)


HANG_STEPS = 10


def hang_timeout_seconds(least: float, progress: Progress, batch_size: int) -> float:
    """How long a training may give no sign of life: `least`, or as long as 10 steps take."""
    speed = progress.images_per_second or 0.0
    return max(least, HANG_STEPS * batch_size / speed if speed else 0.0)
