"""Where metrics go: nowhere (Tracker), or to MLflow (MlflowTracker), without ever holding up the training."""

from collections.abc import Mapping

from workers.outcome import Outcome


class Tracker:
    """Tracks nothing: what every rank but the first uses, and every rank where there is no MLflow."""

    run_id: str | None = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Values measured at `step`."""

    def close(self, outcome: Outcome) -> None:
        """The attempt ended like this; hand over what is left, in bounded time."""
