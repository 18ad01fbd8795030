"""An experiment in the hands of a Python user: look again, wait for its end, read its metrics."""

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, Self

from service.errors import ServiceError
from service.schemas import ExperimentView
from service.states import TERMINAL, State

LOOK_SECONDS = 0.5


class WaitTimeout(ServiceError):
    """The experiment has not ended in time; it goes on."""


class Viewer(Protocol):
    """What a handle needs of the client."""

    def view(self, experiment_id: str) -> ExperimentView:
        """One experiment as the server shows it now."""

    def cancel(self, experiment_id: str) -> ExperimentView:
        """End it."""


class ExperimentHandle:
    """One experiment, as it was when last looked at."""

    def __init__(self, client: Viewer, view: ExperimentView) -> None:
        self._client = client
        self.view = view

    def __repr__(self) -> str:
        return f"<experiment {self.id} {self.view.name!r} {self.state}>"

    @property
    def id(self) -> str:
        """Its id."""
        return self.view.id

    @property
    def state(self) -> State:
        """Its state when last looked at."""
        return self.view.state

    @property
    def metrics(self) -> dict[str, float]:
        """The last values, as in MLflow: val/top1, train/loss, …"""
        return self.view.metrics

    @property
    def summary(self) -> dict[str, Any]:
        """Parameters, MACs, wall seconds and more, once it has ended well."""
        return self.view.summary

    def refresh(self) -> Self:
        """Look again."""
        self.view = self._client.view(self.id)
        return self

    def cancel(self) -> Self:
        """End it and free what it holds."""
        self.view = self._client.cancel(self.id)
        return self

    def wait(self, *, progress: bool = False, timeout: float | None = None) -> Self:
        """Wait until it has ended, however it ends. Raises WaitTimeout after `timeout` seconds; it goes on then.

        `progress` shows a bar with ETA on a terminal, plain lines elsewhere (stderr).
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with _display(progress) as show:
            while True:
                if show is not None:
                    show([self.view])
                if self.state in TERMINAL:
                    return self
                if deadline is not None and time.monotonic() > deadline:
                    raise WaitTimeout(f"{self.id} is {self.state} after {timeout} s; it goes on")
                time.sleep(LOOK_SECONDS)
                self.refresh()


def _display(progress: bool) -> AbstractContextManager[Any]:
    if not progress:
        return nullcontext()
    from service.watch import watching

    return watching(sys.stderr)
