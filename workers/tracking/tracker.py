"""The interface of trackers, and the one that tracks nothing.

Trackers take metrics and facts of a run without ever holding up the training.
"""

from collections.abc import Mapping

from workers.protocol.outcome import Outcome


class Tracker:
    """Tracks nothing: what every rank but the first uses."""

    run_id: str | None = None
    project_id: str | None = None  # MLflow's experiment that the run is in

    def tag(self, tags: Mapping[str, str]) -> None:
        """Facts about the run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Values measured at `step`."""

    def sync(self) -> None:
        """Have what was logged outlast the loss of this machine: a checkpoint is about to go on behind it."""

    def close(self, outcome: Outcome) -> bool:  # noqa: ARG002
        """The attempt ended like this; hand over what is left, in bounded time.

        Returns whether the run has ended with it, and MLflow knows all of it.
        """
        return False
