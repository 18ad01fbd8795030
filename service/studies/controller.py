"""Makes the next steps of studies in the dispatcher's tick. Remembers nothing that the rows do not say too."""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from sqlalchemy.exc import OperationalError

from cbam_core.spec import ExperimentSpec
from service.database.models.studies import Study
from service.domain.studies import BeginTrials, PlannedTrial, Step, StudyKind
from service.errors import NotLeading, StaleMove
from service.studies.rows import Reading, Signature, StudyRows, TrialState, Unobserved
from workers.protocol.storage import ExperimentFolder

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0  # after storage did not answer; doubles with each failure of one trial
LONGEST_PAUSE_SECONDS = 60.0


class StudyPlanner(Protocol):
    """What differs between kinds of studies: what comes next, and what a run reached. Both pure but for reading."""

    def steps(self, study: Study, trials: Sequence[TrialState]) -> list[Step]:
        """What to do now."""

    def spec(self, study: Study, trial: PlannedTrial) -> ExperimentSpec:
        """What a trial is submitted as."""

    def read(self, study: Study, of: Unobserved, folder: ExperimentFolder) -> Reading:
        """What a run that has succeeded reached. Raises OSError where storage does not answer."""


class StudyController:
    """Looks at the studies that go on, and makes their next steps where something of them has changed.

    What runs have reached is read in a thread of its own, so that storage which hangs never delays a tick.
    """

    def __init__(
        self,
        rows: StudyRows,
        planners: Mapping[StudyKind, StudyPlanner],
        *,
        storage: Path,
        clock: Callable[[], float],
    ) -> None:
        self.rows = rows
        self.planners = planners
        self.storage = storage
        self.clock = clock
        self.decided: dict[str, Signature] = {}  # what was looked at and left as it is
        self.not_before: dict[str, float] = {}  # of studies that could not be decided
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="read-runs")
        self.under_way: Future[list[tuple[Unobserved, Reading | OSError]]] | None = None
        self.pauses: dict[str, tuple[float, float]] = {}  # of what could not be read: seconds, and when they are over

    def tick(self) -> None:
        """Make what is due. Returns at once."""
        going_on = self.rows.going_on()
        self.decided = {key: seen for key, seen in self.decided.items() if key in going_on}
        self.not_before = {key: until for key, until in self.not_before.items() if key in going_on}
        if not going_on:
            return
        now = self.clock()
        for study_id, signature in going_on.items():
            if self.decided.get(study_id) != signature and self.not_before.get(study_id, now) <= now:
                self._decide(study_id, signature)
        self._observe()

    def close(self) -> None:
        """Stop after the file in hand."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _decide(self, study_id: str, signature: Signature) -> None:
        """One study that cannot be decided must not hold up the others."""
        try:
            if (loaded := self.rows.load(study_id)) is None:
                return
            study, trials = loaded
            planner = self.planners[StudyKind(study.kind)]
            if not (steps := planner.steps(study, trials)):
                self.decided[study_id] = signature
                return
            begun = [trial for step in steps if isinstance(step, BeginTrials) for trial in step.trials]
            specs = {trial: planner.spec(study, trial) for trial in begun}
            self.rows.apply(study, steps, specs, now_after=max((trial.number for trial in trials), default=-1))
        except (NotLeading, OperationalError):
            raise
        except StaleMove:
            log.debug("the study has changed meanwhile", extra={"study_id": study_id})  # the next tick looks anew
        except Exception:
            log.exception("this study cannot be decided, trying again", extra={"study_id": study_id})
            self.not_before[study_id] = self.clock() + LONGEST_PAUSE_SECONDS

    def _observe(self) -> None:
        if self.under_way is not None:
            if not self.under_way.done():
                return
            done, self.under_way = self.under_way, None
            for of, found in done.result():
                self._take(of, found)
        now = self.clock()
        waiting = [name for name, (_, until) in self.pauses.items() if now < until]
        if unobserved := self.rows.unobserved(besides=waiting):
            self.under_way = self.pool.submit(self._read, unobserved)

    def _take(self, of: Unobserved, found: Reading | OSError) -> None:
        if isinstance(found, OSError):
            before, _ = self.pauses.get(of.experiment_id, (0.0, 0.0))
            pause = min(LONGEST_PAUSE_SECONDS, 2 * before or RETRY_SECONDS)
            self.pauses[of.experiment_id] = (pause, self.clock() + pause)
            log.warning(
                "predictions cannot be read, trying again: %s", found, extra={"experiment_id": of.experiment_id}
            )
            return
        self.pauses.pop(of.experiment_id, None)
        self.rows.note_reading(of, found)

    def _read(self, unobserved: Sequence[Unobserved]) -> list[tuple[Unobserved, Reading | OSError]]:
        found: list[tuple[Unobserved, Reading | OSError]] = []
        for of in unobserved:
            folder = ExperimentFolder(self.storage, of.experiment_id)
            try:
                found.append((of, self.planners[StudyKind(of.study.kind)].read(of.study, of, folder)))
            except OSError as error:
                found.append((of, error))
        return found
