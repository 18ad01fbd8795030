"""A sweep in the hands of a Python user: look again, wait for its end, read its best trial."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self, TextIO

from service.client.comparing.study import StudyHandle
from service.client.errors import NeedsPandas
from service.client.transport import PATIENCE
from service.schemas.sweep_views import RankedTrialView, SweepResult, SweepTrialList, SweepTrialView, SweepView

if TYPE_CHECKING:
    from pandas import DataFrame

ROOT = "/v1/sweeps"


class SweepHandle(StudyHandle[SweepView]):
    """One sweep, as it was when last looked at. What changes it also looks again."""

    KIND = "sweep"
    ROOT = ROOT
    VIEW = SweepView

    @property
    def result(self) -> SweepResult:
        """What it has found so far: every trial by rank. Every access asks the server."""
        return self._wire.get(SweepResult, self._place("result"), patience=PATIENCE)  # the end of a long wait

    @property
    def best(self) -> RankedTrialView | None:
        """The best trial so far; None while none has ended with a value."""
        return self.result.best

    def table(self) -> "DataFrame":
        """The trials by rank as a DataFrame, with a column for each searched field.

        Raises NeedsPandas where pandas is not installed.
        """
        try:
            from pandas import DataFrame
        except ModuleNotFoundError as error:
            raise NeedsPandas from error
        columns = ("number", "value", "outcome", "experiment_id")
        rows = [{name: getattr(one, name) for name in columns} | one.params for one in self.result.trials]
        return DataFrame(rows)

    def trials(self) -> Sequence[SweepTrialView]:
        """Its trials, in the order in which they were proposed."""
        return [one for page in self._pages(SweepTrialList, "trials") for one in page.items]

    def extend(self, **limits: Any) -> Self:
        """Change its limits: `trials`, `concurrent`, `failed`, `hours`. It goes on where that asks for more trials."""
        answer = self._wire.send("PATCH", self._place(), json={"limits": limits})
        self.view = SweepView.model_validate_json(answer.content)
        return self

    def _shown_on(self, stream: TextIO) -> AbstractContextManager[Callable[[], None]]:
        from service.client.sweeping.display import watching_sweep

        return watching_sweep(self, stream)
