"""An experiment in the hands of a Python user: look again, wait for its end, read its metrics."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Protocol, Self

from service.client.waiting import wait_for
from service.domain.states import TERMINAL, State
from service.schemas.experiments import ExperimentView
from service.schemas.files import FileView
from service.schemas.history import AttemptView, CurveView, EventView


class Calls(Protocol):
    """What a handle needs of the client; see there what each does."""

    def view(self, experiment_id: str, *, patiently: bool = False, until: float | None = None) -> ExperimentView: ...  # noqa: D102

    def cancel(self, experiment_id: str) -> ExperimentView: ...  # noqa: D102

    def pause(self, experiment_id: str) -> ExperimentView: ...  # noqa: D102

    def resume(self, experiment_id: str) -> ExperimentView: ...  # noqa: D102

    def retry(self, experiment_id: str) -> ExperimentView: ...  # noqa: D102

    def clone(self, experiment_id: str, overrides: Mapping[str, Any] | None = None) -> "ExperimentHandle": ...  # noqa: D102

    def delete(self, experiment_id: str) -> None: ...  # noqa: D102

    def events(self, experiment_id: str) -> Sequence[EventView]: ...  # noqa: D102

    def attempts(self, experiment_id: str) -> Sequence[AttemptView]: ...  # noqa: D102

    def curves(self, experiment_id: str, *, names: Sequence[str] = ()) -> dict[str, CurveView]: ...  # noqa: D102

    def logs(self, experiment_id: str, *, rank: int = 0) -> str: ...  # noqa: D102

    def follow_logs(self, experiment_id: str, *, rank: int = 0) -> Iterator[str]: ...  # noqa: D102

    def files(self, experiment_id: str, pattern: str = "*") -> Sequence[FileView]: ...  # noqa: D102

    def download(  # noqa: D102
        self, experiment_id: str, pattern: str = "*", to: Path | str | None = None, *, progress: bool = False
    ) -> list[Path]: ...


class ExperimentHandle:
    """One experiment, as it was when last looked at. What changes it also looks again."""

    def __init__(self, client: Calls, view: ExperimentView) -> None:
        self._client = client
        self.view = view

    def __repr__(self) -> str:
        return f"<experiment {self.id} {self.view.name!r} {self.state}>"

    def _repr_html_(self) -> str:
        from service.client.notebook import experiment_html

        return experiment_html(self.view)

    @property
    def id(self) -> str:
        """Its id."""
        return self.view.id

    @property
    def state(self) -> State:
        """Its state when last looked at."""
        return self.view.state

    @property
    def has_ended(self) -> bool:
        """Whether it had ended when last looked at."""
        return self.state in TERMINAL

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

    def pause(self) -> Self:
        """Write a checkpoint, free what it holds, wait."""
        self.view = self._client.pause(self.id)
        return self

    def resume(self) -> Self:
        """Queue it again, once it is paused."""
        self.view = self._client.resume(self.id)
        return self

    def retry(self) -> Self:
        """Queue it once more, after it failed or was cancelled."""
        self.view = self._client.retry(self.id)
        return self

    def clone(self, overrides: Mapping[str, Any] | None = None) -> "ExperimentHandle":
        """Submit the same once more, with changes as `{"train.epochs": 3}`; gives the new experiment."""
        return self._client.clone(self.id, overrides)

    def delete(self) -> None:
        """Delete it with its logs and checkpoints, once it has ended."""
        self._client.delete(self.id)

    def events(self) -> Sequence[EventView]:
        """Every change of its state, oldest first."""
        return self._client.events(self.id)

    def attempts(self) -> Sequence[AttemptView]:
        """Every attempt at it, oldest first."""
        return self._client.attempts(self.id)

    def curves(self, *names: str) -> dict[str, CurveView]:
        """The history of its metrics, or of those named."""
        return self._client.curves(self.id, names=names)

    def logs(self, *, rank: int = 0) -> str:
        """The log of one worker, as far as it is written."""
        return self._client.logs(self.id, rank=rank)

    def follow_logs(self, *, rank: int = 0) -> Iterator[str]:
        """The lines of one worker's log as they are written, to its end."""
        return self._client.follow_logs(self.id, rank=rank)

    def files(self, pattern: str = "*") -> Sequence[FileView]:
        """Its files, by path; of those, what matches, as `export/*`."""
        return self._client.files(self.id, pattern)

    def download(self, pattern: str = "*", to: Path | str | None = None, *, progress: bool = False) -> list[Path]:
        """Download the files that match into a folder, one of its id where left out; gives their paths.

        Each is checked by its SHA-256; what is there already, or in part, is not fetched again.
        """
        return self._client.download(self.id, pattern, to, progress=progress)

    def wait(self, *, progress: bool = False, timeout: float | None = None) -> Self:
        """Wait until it has ended, however it ends. Raises WaitTimeout after `timeout` seconds; it goes on then.

        `progress` shows a bar with ETA on a terminal, plain lines elsewhere (stderr). A server that is being restarted
        is waited for, also not longer than `timeout`.
        """
        with display(progress) as show:
            wait_for(self, None if show is None else lambda: show([self.view]), timeout=timeout)
        return self

    def look(self, *, until: float | None = None) -> None:
        """Look again, also where the server is just being restarted, but not after the time `until`."""
        self.view = self._client.view(self.id, patiently=True, until=until)


def display(progress: bool) -> AbstractContextManager[Any]:
    """What shows views while they are waited for, on stderr; None where nothing is to be shown."""
    if not progress:
        return nullcontext()
    from service.client.progress_display import watching

    return watching(sys.stderr)
