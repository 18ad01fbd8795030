"""A study of any kind in the hands of a Python user: look again, wait for its end, ask for changes."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Generic, Self, TextIO, TypeVar

from service.client.transport import PATIENCE, Transport, path
from service.client.waiting import wait_for
from service.domain.states import State
from service.domain.studies import STUDY_TERMINAL, StudyState
from service.schemas.experiments import ExperimentPage, ExperimentView
from service.schemas.studies import ComparisonView, DecisionList, DecisionView, TrialList
from service.schemas.sweep_views import SweepTrialList, SweepView

ViewT = TypeVar("ViewT", ComparisonView, SweepView)
PageT = TypeVar("PageT", TrialList, SweepTrialList, DecisionList)


class StudyHandle(Generic[ViewT]):
    """One study, as it was when last looked at. What changes it also looks again."""

    KIND: ClassVar[str]
    ROOT: ClassVar[str]
    VIEW: type[ViewT]

    def __init__(self, wire: Transport, view: ViewT) -> None:
        self._wire = wire
        self.view: ViewT = view

    def __repr__(self) -> str:
        return f"<{self.KIND} {self.id} {self.view.name!r} {self.state}>"

    @property
    def id(self) -> str:
        """Its id."""
        return self.view.id

    @property
    def state(self) -> StudyState:
        """Its state when last looked at."""
        return self.view.state

    @property
    def has_ended(self) -> bool:
        """Whether it had ended when last looked at."""
        return self.state in STUDY_TERMINAL

    def refresh(self) -> Self:
        """Look again."""
        self.view = self._wire.get(self.VIEW, self._place())
        return self

    def look(self, *, until: float | None = None) -> None:
        """Look again, also where the server is just being restarted, but not after the time `until`."""
        self.view = self._wire.get(self.VIEW, self._place(), patience=PATIENCE, until=until)

    def cancel(self) -> Self:
        """End it and its experiments; what they have reached stays."""
        return self._act("cancel")

    def pause(self) -> Self:
        """Have its experiments write checkpoints and wait."""
        return self._act("pause")

    def resume(self) -> Self:
        """Go on, once it is paused."""
        return self._act("resume")

    def retry(self) -> Self:
        """Queue those of its experiments once more that failed or were cancelled, once it has ended."""
        return self._act("retry")

    def delete(self, *, experiments: bool = False) -> None:
        """Delete it, once it has ended; with its experiments and their files only where that is said."""
        self._wire.send("DELETE", self._place(), params={"experiments": str(experiments).lower()})

    def decisions(self) -> Sequence[DecisionView]:
        """What was decided of it and by whom, oldest first."""
        return [one for page in self._pages(DecisionList, "decisions") for one in page.items]

    def running(self) -> Sequence[ExperimentView]:
        """Those of its experiments that train now, without their specs."""
        query = {"study": self.id, "state": State.RUNNING, "spec": "false", "limit": 200}
        return self._wire.get(ExperimentPage, "/v1/experiments", params=query, patience=PATIENCE).items

    def wait(self, *, progress: bool = False, timeout: float | None = None) -> Self:
        """Wait until it has ended, however it ends. Raises WaitTimeout after `timeout` seconds; it goes on then.

        `progress` shows a live picture on a terminal, plain lines elsewhere (stderr). A server that is being restarted
        is waited for, also not longer than `timeout`.
        """
        with self._display(progress) as show:
            wait_for(self, show, timeout=timeout)
        return self

    def _display(self, progress: bool) -> AbstractContextManager[Callable[[], None] | None]:
        return self._shown_on(sys.stderr) if progress else nullcontext()

    def _shown_on(self, stream: TextIO) -> AbstractContextManager[Callable[[], None]]:
        raise NotImplementedError

    def _act(self, action: str) -> Self:
        """To ask twice for a cancel, a pause or a resume is no error; for a retry that was heard it is."""
        self.view = self._wire.post(self.VIEW, self._place(action), again=action != "retry")
        return self

    def _pages(self, view: type[PageT], part: str) -> Iterator[PageT]:
        query: dict[str, str] = {}
        while True:
            page = self._wire.get(view, self._place(part), params=query)
            yield page
            if page.next_cursor is None:
                return
            query["cursor"] = page.next_cursor

    def _place(self, *parts: str) -> str:
        return path(self.ROOT, self.id, *parts)
