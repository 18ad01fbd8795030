"""Many experiments in the hands of a Python user: as a data frame, as a table in a notebook, waited for together."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, Self, overload

from service.client.errors import MissingExperiments, NotReady, ServerUnreachable, TooMany
from service.client.experiment import Calls, ExperimentHandle, display
from service.client.waiting import WaitTimeout
from service.domain.states import TERMINAL
from service.schemas.experiments import ExperimentView

if TYPE_CHECKING:
    import pandas

LOOK_SECONDS = 1.0
MOST_NAMED = 8  # in a message


class ManyCalls(Calls, Protocol):
    """What many experiments need of the client; see there what each does."""

    def views(  # noqa: D102
        self, experiment_ids: Sequence[str], *, spec: bool = True, until: float | None = None
    ) -> dict[str, ExperimentView]: ...


class Experiments(Sequence[ExperimentHandle]):
    """Experiments in their order, each as it was when last looked at."""

    def __init__(self, client: ManyCalls, handles: Iterable[ExperimentHandle]) -> None:
        self._client = client
        self._handles = tuple(handles)

    def __len__(self) -> int:
        return len(self._handles)

    @overload
    def __getitem__(self, index: int) -> ExperimentHandle: ...

    @overload
    def __getitem__(self, index: slice) -> "Experiments": ...

    def __getitem__(self, index: int | slice) -> "ExperimentHandle | Experiments":
        if isinstance(index, slice):
            return Experiments(self._client, self._handles[index])
        return self._handles[index]

    def __iter__(self) -> Iterator[ExperimentHandle]:
        return iter(self._handles)

    def __repr__(self) -> str:
        return f"<{len(self)} experiments: {_named(self._views())}>"

    def _repr_html_(self) -> str:
        from service.client.notebook import list_html

        return list_html(self._views())

    def to_frame(self) -> "pandas.DataFrame":
        """A pandas DataFrame with a row for each experiment.

        Columns: id, name, project, state, attention, backbone, dataset, seed; the last value of each metric by its name
        (`test/top1`; NaN where there is none); parameters, macs, images_per_second, wall_seconds, created_at (UTC) and
        tags (dicts). Raises NeedsPandas where pandas is not installed.
        """
        from service.client.frame import to_frame

        return to_frame(self._views())

    def wait_all(self, *, progress: bool = False, timeout: float | None = None) -> Self:
        """Wait until all have ended, however they end; see `Client.wait_all`."""
        wait_all(self._client, self._handles, progress=progress, timeout=timeout)
        return self

    def _views(self) -> list[ExperimentView]:
        return [handle.view for handle in self._handles]


def wait_all(
    client: ManyCalls, handles: Sequence[ExperimentHandle], *, progress: bool = False, timeout: float | None = None
) -> None:
    """Wait until all of them have ended, and have them show how.

    Each look is one request for a hundred of them. One that has been deleted does not end the wait for the others.
    Raises WaitTimeout after `timeout` seconds, MissingExperiments at the end where some have been deleted.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    views = {handle.id: handle.view for handle in handles}
    gone: set[str] = set()
    pause = 0.0  # they may have ended since they were last looked at
    with display(progress) as show:
        while True:
            if show is not None:
                show([view for name, view in views.items() if name not in gone])
            waiting = [name for name, view in views.items() if view.state not in TERMINAL and name not in gone]
            if not waiting:
                break
            left = LOOK_SECONDS if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeout(_late(views, waiting, timeout))
            time.sleep(min(pause, left))
            seen = _look(client, views, waiting, deadline)
            views |= seen
            gone |= {*waiting} - seen.keys()
            for handle in handles:
                handle.view = views[handle.id]
            pause = LOOK_SECONDS
    if gone:
        raise MissingExperiments(gone)


def _look(
    client: ManyCalls, views: Mapping[str, ExperimentView], waiting: Sequence[str], deadline: float | None
) -> dict[str, ExperimentView]:
    """Those that are still there, without asking for their specs again until they have ended."""
    try:
        seen = client.views(waiting, spec=False, until=deadline)
        ended = [name for name, view in seen.items() if view.state in TERMINAL]
        whole = client.views(ended, until=deadline) if ended else {}
    except (ServerUnreachable, NotReady, TooMany) as error:
        if deadline is None or time.monotonic() < deadline:
            raise
        raise WaitTimeout(f"not ended when they were last seen: {_named(views[name] for name in waiting)}") from error
    return {name: view.model_copy(update={"spec": views[name].spec}) for name, view in seen.items()} | whole


def _late(views: Mapping[str, ExperimentView], waiting: Sequence[str], timeout: float | None) -> str:
    states = _named(views[name] for name in waiting)
    return f"{len(waiting)} of {len(views)} have not ended after {timeout} s, and go on: {states}"


def _named(views: Iterable[ExperimentView]) -> str:
    words = [f"{view.id} {view.state}" for view in views]
    return ", ".join(words[:MOST_NAMED]) + ", …" * (len(words) > MOST_NAMED)
