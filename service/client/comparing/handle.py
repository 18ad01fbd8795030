"""A comparison in the hands of a Python user: look again, wait for its end, read its verdicts."""

import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeVar

from service.client.errors import CannotWrite, ChangedMeanwhile
from service.client.transport import PATIENCE, Transport, path
from service.client.waiting import wait_for
from service.domain.states import State
from service.domain.studies import STUDY_TERMINAL, StudyState
from service.errors import ServiceError
from service.schemas.comparison_results import ResultView
from service.schemas.experiments import ExperimentPage, ExperimentView
from service.schemas.studies import ComparisonProgress, ComparisonView, DecisionList, DecisionView, TrialList, TrialView

if TYPE_CHECKING:
    from pandas import DataFrame

ROOT = "/v1/comparisons"
MOST_TRIES = 10  # a comparison changes with every block of experiments that is queued
PageT = TypeVar("PageT", TrialList, DecisionList)
ReportFormat = Literal["html", "markdown"]


class ComparisonHandle:
    """One comparison, as it was when last looked at. What changes it also looks again."""

    def __init__(self, wire: Transport, view: ComparisonView) -> None:
        self._wire = wire
        self.view = view

    def __repr__(self) -> str:
        return f"<comparison {self.id} {self.view.name!r} {self.state}>"

    def _repr_html_(self) -> str:
        """The table and the verdicts, for notebooks."""
        from service.client.comparing.table import as_html

        try:
            return as_html(self.result)
        except ServiceError as error:  # a notebook shows what it can
            from html import escape

            return f"<pre>{escape(repr(self))}\n{escape(str(error))}</pre>"

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

    @property
    def result(self) -> ResultView:
        """What it has shown so far: numbers, verdicts, why runs cannot be compared. Every access asks the server."""
        return self._wire.get(ResultView, self._place("result"), patience=PATIENCE)  # the end of a long wait

    def table(self) -> "DataFrame":
        """The result as a DataFrame: a row for each difference, and one for the control. Accuracies are fractions of 1.

        Raises NeedsPandas where pandas is not installed.
        """
        from service.client.comparing.table import as_frame

        return as_frame(self.result)

    def refresh(self) -> Self:
        """Look again."""
        self.view = self._wire.get(ComparisonView, self._place())
        return self

    def look(self, *, until: float | None = None) -> None:
        """Look again, also where the server is just being restarted, but not after the time `until`."""
        self.view = self._wire.get(ComparisonView, self._place(), patience=PATIENCE, until=until)

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

    def add_seeds(self, count: int) -> Self:
        """Train every variant with so many seeds more than are wanted now.

        Once results have been seen, only the wider interval is told that holds at every look. Raises ChangedMeanwhile
        where somebody else changes the number in the same moment.
        """
        seeds = self.refresh().view.seeds
        for _ in range(MOST_TRIES):
            headers = {"If-Match": f'"{self.view.version}"'}
            try:
                answer = self._wire.send("PATCH", self._place(), json={"seeds": seeds + count}, headers=headers)
            except ChangedMeanwhile:
                if self.refresh().view.seeds != seeds:
                    raise
                continue
            self.view = ComparisonView.model_validate_json(answer.content)
            return self
        raise ChangedMeanwhile(412, {"detail": f"{self.id} changes faster than it can be read"})

    def replicate(
        self, *, seeds: int | None = None, name: str | None = None, idempotency_key: str | None = None
    ) -> "ComparisonHandle":
        """Ask the same again with fresh seeds: a comparison of its own. The results of both tell of each other.

        The same key gives the same comparison.
        """
        body = {"seeds": seeds, "name": name}
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        view = self._wire.post(ComparisonView, self._place("replicate"), json=body, headers=headers)
        return ComparisonHandle(self._wire, view)

    def trials(self) -> Sequence[TrialView]:
        """Its runs, in the order in which they were queued."""
        return [one for page in self._pages(TrialList, "trials") for one in page.items]

    def decisions(self) -> Sequence[DecisionView]:
        """What was decided of it and by whom, oldest first."""
        return [one for page in self._pages(DecisionList, "decisions") for one in page.items]

    def follow(self) -> Iterator[DecisionView | ComparisonProgress]:
        """What is decided of it, from its beginning on, and where it is whenever that changes, until it has ended.

        A server that is being restarted is waited for. Progress comes once at first: as it was when this was asked.
        """
        for event in self._wire.follow(self._place("events", "stream"), params={}):
            yield (DecisionView if event.event == "decision" else ComparisonProgress).model_validate_json(event.data)

    def running(self) -> Sequence[ExperimentView]:
        """Those of its experiments that train now, without their specs."""
        query = {"study": self.id, "state": State.RUNNING, "spec": "false", "limit": 200}
        return self._wire.get(ExperimentPage, "/v1/experiments", params=query, patience=PATIENCE).items

    def report(self, *, format: ReportFormat = "html") -> str:
        """The report: one HTML file that needs nothing else, or Markdown."""
        return self._wire.send("GET", self._place("report"), params={"format": format}).content.decode()

    def save_report(self, path: Path | str, *, format: ReportFormat | None = None) -> Path:
        """Write the report into a file, as Markdown where its name ends with .md. Raises CannotWrite."""
        ending: ReportFormat = "markdown" if Path(path).suffix.lower() in (".md", ".markdown") else "html"
        return _write(path, self.report(format=format or ending))

    def figure(self) -> str:
        """The forest plot of the differences, as SVG."""
        return self._wire.send("GET", self._place("figure.svg")).content.decode()

    def save_figure(self, path: Path | str) -> Path:
        """Write the figure into a file. Raises CannotWrite."""
        return _write(path, self.figure())

    def wait(self, *, progress: bool = False, timeout: float | None = None) -> Self:
        """Wait until it has ended, however it ends. Raises WaitTimeout after `timeout` seconds; it goes on then.

        `progress` shows a live table on a terminal, plain lines elsewhere (stderr). A server that is being restarted is
        waited for, also not longer than `timeout`.
        """
        with self._display(progress) as show:
            wait_for(self, show, timeout=timeout)
        return self

    def _display(self, progress: bool) -> AbstractContextManager[Callable[[], None] | None]:
        if not progress:
            return nullcontext()
        from service.client.comparing.display import watching_comparison

        return watching_comparison(self, sys.stderr)

    def _act(self, action: str) -> Self:
        """To ask twice for a cancel, a pause or a resume is no error; for a retry that was heard it is."""
        self.view = self._wire.post(ComparisonView, self._place(action), again=action != "retry")
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
        return path(ROOT, self.id, *parts)


def _write(path: Path | str, text: str) -> Path:
    path = Path(path)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror}") from error
    return path
