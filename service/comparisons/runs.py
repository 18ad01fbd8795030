"""The runs of a comparison, as its result sees them: which are finished, and what they reached as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from service.comparisons.decide import ComparisonSeen, TrialSeen
from service.comparisons.observation import Observation, right_images
from service.comparisons.planner import seen
from service.comparisons.statistics import Scores
from service.database.models.experiments import Experiment
from service.database.models.studies import Study, Trial
from service.domain.states import Desired, Reason, State
from service.domain.studies import name_of
from service.studies.rows import TrialState
from service.studies.store import TrialRow

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Run:
    """One run: its rows, and what the next steps of the comparison are decided by."""

    trial: Trial
    experiment: Experiment | None
    seen: TrialSeen

    @property
    def label(self) -> str:
        """The run in words."""
        return name_of(self.trial.variant, self.trial.block)

    @property
    def diverged(self) -> bool:
        """Whether its loss was no longer finite, so that it counts as chance."""
        return self.seen.diverged

    @property
    def facts(self) -> dict[str, Any]:
        """What the worker has said of it at its end; nothing for one that is deleted or has failed."""
        return (self.experiment and self.experiment.summary) or {}


@dataclass(frozen=True)
class Runs:
    """All runs of a comparison, by the number of their trial, and the blocks of seeds that are finished.

    Those that train and those that measure cost are apart.
    """

    all: Sequence[Run]  # trainings
    probes: Sequence[Run]  # of cost
    plan: ComparisonSeen
    blocks: tuple[int, ...]
    """Of which every variant has a number, in order."""

    @property
    def images(self) -> int | None:
        """N, of the part that is compared."""
        return self.plan.images

    def counted(self, variant: str) -> list[Run]:
        """The runs of a variant that are in the numbers, one for each finished block."""
        return [self.at[variant, block] for block in self.blocks]

    @cached_property
    def at(self) -> dict[tuple[str, int], Run]:
        """Each run by variant and block."""
        return {(run.trial.variant, run.trial.block): run for run in self.all}

    def scores(self, variant: str) -> Scores:
        """What a variant reached: image by image, or as counts where one of its runs lacks that."""
        runs = self.counted(variant)
        diverged = sum(run.diverged for run in runs)
        counts = np.array([run.seen.correct for run in runs], dtype=np.int64)
        if not runs or any(run.trial.observed is None for run in runs):  # one that diverged is not observed
            return Scores(counts=counts, diverged=diverged)
        return Scores(correct=np.stack([right_images(run.trial.observed or {}) for run in runs]), counts=counts)

    def groups(self) -> "NDArray[np.int64] | None":
        """[N], which images are no new evidence beside each other; the same for all runs of the same images."""
        stored = next((run.trial.observed for run in self.all if run.trial.observed), None)
        groups = None if stored is None or "groups" not in stored else Observation.from_json(stored).groups
        return None if groups is None else groups.astype(np.int64)


def runs_of(study: Study, rows: Sequence[TrialRow]) -> Runs:
    """The rows of a comparison's trials, as its result sees them."""
    plan = seen(study, [_state(row) for row in rows])
    by_number = {row.trial.number: row for row in rows}
    runs, probes = ([_run(by_number[one.number], one) for one in some] for some in (plan.trials, plan.probes))
    done: dict[int, set[str]] = {}
    for run in runs:
        if run.seen.counts:
            done.setdefault(run.trial.block, set()).add(run.trial.variant)
    finished = tuple(sorted(block for block, variants in done.items() if variants >= set(plan.variants)))
    return Runs(runs, probes, plan, finished)


def _run(row: TrialRow, trial: TrialSeen) -> Run:
    return Run(row.trial, row.experiment, trial)


def _state(row: TrialRow) -> TrialState:
    trial, experiment = row.trial, row.experiment
    return TrialState(
        number=trial.number,
        block=trial.block,
        variant=trial.variant,
        is_observed=trial.observed_at is not None,
        correct=trial.correct,
        images=trial.images,
        state=None if experiment is None else State(experiment.state),
        desired=Desired.RUN if experiment is None else Desired(experiment.desired),
        reason=None if experiment is None or experiment.reason is None else Reason(experiment.reason),
        message="" if experiment is None else experiment.message,
        version=0,  # of no use to what has been read already
    )
