"""A comparison in the hands of a Python user: look again, wait for its end, read its verdicts."""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TextIO

from service.client.comparing.study import StudyHandle
from service.client.errors import CannotWrite, ChangedMeanwhile
from service.client.transport import PATIENCE
from service.errors import ServiceError
from service.schemas.comparison_results import ResultView
from service.schemas.studies import ComparisonProgress, ComparisonView, DecisionView, TrialList, TrialView

if TYPE_CHECKING:
    from pandas import DataFrame

ROOT = "/v1/comparisons"
MOST_TRIES = 10  # a comparison changes with every block of experiments that is queued
ReportFormat = Literal["html", "markdown"]


class ComparisonHandle(StudyHandle[ComparisonView]):
    """One comparison, as it was when last looked at. What changes it also looks again."""

    KIND = "comparison"
    ROOT = ROOT
    VIEW = ComparisonView

    def _repr_html_(self) -> str:
        """The table and the verdicts, for notebooks."""
        from service.client.comparing.table import as_html

        try:
            return as_html(self.result)
        except ServiceError as error:  # a notebook shows what it can
            from html import escape

            return f"<pre>{escape(repr(self))}\n{escape(str(error))}</pre>"

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

    def follow(self) -> Iterator[DecisionView | ComparisonProgress]:
        """What is decided of it, from its beginning on, and where it is whenever that changes, until it has ended.

        A server that is being restarted is waited for. Progress comes once at first: as it was when this was asked.
        """
        for event in self._wire.follow(self._place("events", "stream"), params={}):
            yield (DecisionView if event.event == "decision" else ComparisonProgress).model_validate_json(event.data)

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

    def _shown_on(self, stream: TextIO) -> AbstractContextManager[Callable[[], None]]:
        from service.client.comparing.display import watching_comparison

        return watching_comparison(self, stream)


def _write(path: Path | str, text: str) -> Path:
    path = Path(path)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CannotWrite(f"{path}: {error.strerror}") from error
    return path
