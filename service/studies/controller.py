"""Makes the next steps of studies in the dispatcher's tick. Remembers nothing that the rows do not say too."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from sqlalchemy.exc import OperationalError

from cbam_core.spec import ExperimentSpec
from service.database.models.studies import Study
from service.domain.studies import BeginTrials, PlannedTrial, RetryTrials, Step, StudyKind
from service.errors import NotLeading, StaleMove
from service.studies.rows import Reading, Signature, StudyRows, TrialState, Unobserved
from workers.protocol.storage import ExperimentFolder

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0  # after storage did not answer; doubles with each failure of one trial
LONGEST_PAUSE_SECONDS = 60.0
LOOK_AT_ALL_SECONDS = 10.0
TICK_SECONDS = 0.1  # of a tick, at most and one study more


class StudyPlanner(Protocol):
    """What differs between kinds of studies: what comes next, and what a run reached. Nothing here waits."""

    def steps(self, study: Study, trials: Sequence[TrialState]) -> list[Step]:
        """What to do now."""

    def spec(self, study: Study, trial: PlannedTrial) -> ExperimentSpec:
        """What a trial is submitted as."""

    def read(self, study: Study, of: Unobserved, folder: ExperimentFolder) -> Reading:
        """What a run that has succeeded reached. Raises OSError where storage does not answer."""

    def seconds_left(self, study: Study) -> float | None:  # noqa: ARG002 - most kinds have no hours
        """Seconds after which a study is to be looked at though no row has changed; None: never."""
        return None

    def answered(self) -> frozenset[str]:
        """Studies for which something has come since this was last asked, that `steps` waited for."""
        return frozenset()

    def close(self) -> None:
        """End what was begun for it."""
        return


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
        self.decided: dict[str, int] = {}  # versions of studies that were looked at and left as they are
        self.signatures: dict[str, Signature] = {}  # when all was last looked at
        self.changed: set[str] = set()  # studies of which something else than their own row has changed since
        self.seen_seq: int | None = None  # of events: None before the first look
        self.look_at_all = 0.0
        self.last: str | None = None  # the study that was decided last
        self.not_before: dict[str, float] = {}  # of studies that could not be decided
        self.look_at: dict[str, float] = {}  # studies, when their time is over
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="read-runs")
        self.under_way: Future[list[tuple[Unobserved, Reading | Exception]]] | None = None
        self.missed = True  # runs may have ended that were not asked for
        self.pauses: dict[str, tuple[float, float]] = {}  # of what could not be read: seconds, and when they are over

    def tick(self) -> None:
        """Make what is due. Returns at once."""
        going_on = self.rows.going_on()
        if not going_on:
            self._forget()
            return
        for planner in self.planners.values():
            self.changed |= planner.answered()
        self._note_changes(going_on)
        self.missed |= bool(self.changed) or any(
            study_id not in self.decided and study_id not in self.not_before for study_id in going_on
        )  # the runs of a study may have been there before it
        now, began = self.clock(), time.monotonic()
        due = [
            study_id
            for study_id, version in going_on.items()
            if (study_id in self.changed or self.decided.get(study_id) != version or self._time_is_over(study_id, now))
            and self.not_before.get(study_id, now) <= now
        ]
        for study_id in self._in_turns(due):
            self.last = study_id
            self._decide(study_id)
            if time.monotonic() - began > TICK_SECONDS:
                break  # the others have their turn in the next tick: experiments are to be started meanwhile
        self._read_runs()

    def _time_is_over(self, study_id: str, now: float) -> bool:
        return self.look_at.get(study_id, now + 1) <= now

    def _in_turns(self, due: Sequence[str]) -> list[str]:
        """Those behind the one that had the last turn come first."""
        place = due.index(self.last) + 1 if self.last in due else 0
        return [*due[place:], *due[:place]]

    def _forget(self) -> None:
        self.decided, self.signatures, self.not_before, self.look_at = {}, {}, {}, {}
        self.changed, self.seen_seq, self.pauses, self.missed = set(), None, {}, True

    def _note_changes(self, going_on: Mapping[str, int]) -> None:
        """By the events of this moment; now and then by a look at all rows, which knows of deletions too."""
        newest = self.rows.newest_event()  # before the rows are looked at: what comes later is seen once more
        if self.seen_seq is None or self.clock() >= self.look_at_all:
            self.look_at_all = self.clock() + LOOK_AT_ALL_SECONDS
            seen = self.rows.signatures()
            self.changed |= {key for key, signature in seen.items() if self.signatures.get(key) != signature}
            self.signatures = seen
        elif newest != self.seen_seq:
            self.changed |= self.rows.touched(after_seq=self.seen_seq, until_seq=newest)
        self.seen_seq = newest
        self.changed &= going_on.keys()
        for kept in (self.decided, self.not_before, self.look_at):
            for gone in kept.keys() - going_on.keys():
                del kept[gone]

    def close(self) -> None:
        """Stop after the file in hand."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        for planner in self.planners.values():
            planner.close()

    def _decide(self, study_id: str) -> None:
        """One study that cannot be decided must not hold up the others."""
        try:
            if (loaded := self.rows.load(study_id)) is None:
                return
            study, trials = loaded
            planner = self.planners[StudyKind(study.kind)]
            if not (steps := planner.steps(study, trials)):
                self.decided[study_id] = study.version
                self.changed.discard(study_id)
                self._look_again(study_id, planner.seconds_left(study))
                return
            specs = {trial: planner.spec(study, trial) for trial in to_submit(steps)}
            self.rows.apply(study, trials, steps, specs)
        except (NotLeading, OperationalError):
            raise
        except StaleMove:
            log.debug("the study has changed meanwhile", extra={"study_id": study_id})  # the next tick looks anew
        except Exception:
            log.exception("this study cannot be decided, trying again", extra={"study_id": study_id})
            self.not_before[study_id] = self.clock() + LONGEST_PAUSE_SECONDS

    def _look_again(self, study_id: str, seconds: float | None) -> None:
        self.look_at.pop(study_id, None)
        if seconds is not None:
            self.look_at[study_id] = self.clock() + seconds

    def _read_runs(self) -> None:
        """Take what the thread has read, and where runs may have ended since give it those.

        What cannot be written down now is read again: `missed` stays true until all has been asked for once more.
        """
        if self.under_way is not None:
            if not self.under_way.done():
                return
            done, self.under_way, self.missed = self.under_way, None, True
            for of, found in done.result():
                self._take(of, found)
        now = self.clock()
        if not (self.missed or any(until <= now for _, until in self.pauses.values())):
            return
        waiting = [name for name, (_, until) in self.pauses.items() if now < until]
        unobserved = self.rows.unobserved(besides=waiting)
        self.missed = False
        wanted = {*waiting, *(of.experiment_id for of in unobserved)}
        self.pauses = {name: pause for name, pause in self.pauses.items() if name in wanted}
        if unobserved:
            self.under_way = self.pool.submit(self._read, unobserved)

    def _take(self, of: Unobserved, found: Reading | Exception) -> None:
        if isinstance(found, Exception):
            before, _ = self.pauses.get(of.experiment_id, (0.0, 0.0))
            pause = min(LONGEST_PAUSE_SECONDS, 2 * before or RETRY_SECONDS)
            self.pauses[of.experiment_id] = (pause, self.clock() + pause)
            log.warning(
                "predictions cannot be read, trying again: %r", found, extra={"experiment_id": of.experiment_id}
            )
            return
        self.pauses.pop(of.experiment_id, None)
        self.rows.note_reading(of, found)
        self.changed.add(of.study.id)

    def _read(self, unobserved: Sequence[Unobserved]) -> list[tuple[Unobserved, Reading | Exception]]:
        """One run that cannot be read must not hold up the others: nobody hears what this thread raises."""
        found: list[tuple[Unobserved, Reading | Exception]] = []
        for of in unobserved:
            folder = ExperimentFolder(self.storage, of.experiment_id)
            try:
                found.append((of, self.planners[StudyKind(of.study.kind)].read(of.study, of, folder)))
            except Exception as error:
                found.append((of, error))
        return found


def to_submit(steps: Sequence[Step]) -> list[PlannedTrial]:
    """Those trials of which an experiment may be made."""
    begun = [trial for step in steps if isinstance(step, BeginTrials) for trial in step.trials]
    retried = [trial for step in steps if isinstance(step, RetryTrials) for _, trial in step.trials]
    controls = [trial.control for trial in begun if trial.control is not None]  # a probe is of two specs
    return [trial for trial in (*begun, *controls, *retried) if trial.refused is None]
