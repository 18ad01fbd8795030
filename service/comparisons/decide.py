"""What a comparison does next, decided from its rows alone. Pure: killed at any moment, it decides the same again.

Experiments are begun in blocks of one seed, with the variants of a block in a shuffled order: what drifts over the
hours (a machine that grows warm, others on it) meets all variants alike. The probes of cost come last, one at a time.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from service.comparisons.statistics import Measured, Pairs, Precision, Scores, judge
from service.domain.states import TERMINAL, Desired, Reason, State, has_diverged
from service.domain.studies import (
    PROBE_BLOCK,
    BeginTrials,
    PlannedTrial,
    PlanSeeds,
    Step,
    StudyMove,
    StudyReason,
    StudyState,
    seed_of,
)
from service.studies.life import commonest, steps_of_wishes

MOST_OPEN = 64  # experiments of one comparison that wait or train at a time
MOST_FAILED_IN_A_ROW = 5  # and at least a whole block of them


@dataclass(frozen=True, kw_only=True)
class TrialSeen:
    """One trial, and what became of its experiment.

    `correct` images of the part that is compared were classified right; None while that is not known. `state` is None
    where the experiment was deleted.
    """

    number: int
    block: int
    variant: str
    state: State | None
    desired: Desired = Desired.RUN
    reason: Reason | None = None
    message: str = ""
    observed: bool = False
    correct: int | None = None  # of a run that diverged, chance

    @property
    def is_open(self) -> bool:
        """Whether something of it is still to come: its end, or what it reached."""
        if self.state is State.SUCCEEDED:
            return not self.observed
        return self.state is not None and self.state not in TERMINAL

    @property
    def diverged(self) -> bool:
        """Whether its loss was no longer finite, so that it counts as chance."""
        return has_diverged(self.state, self.reason)

    @property
    def is_broken(self) -> bool:
        """Ended without a number; a run that diverged has one."""
        return self.state is State.FAILED and not self.diverged

    @property
    def counts(self) -> bool:
        """Whether it has a number."""
        return self.correct is not None and not self.is_open


@dataclass(frozen=True, kw_only=True)
class ComparisonSeen:
    """All that the next steps of a comparison depend on."""

    state: StudyState
    desired: Desired
    reason: StudyReason | None
    message: str
    seed: int
    variants: tuple[str, ...]
    control: str
    seeds: int  # blocks that are wanted: the pilot's, until the number is chosen
    precision: Precision | None  # None: as many as were said beforehand
    pairs: Pairs
    images: int | None  # in the part that is compared, once that is known
    seeds_chosen: bool  # under `precision`: the pilot is over
    owns_runs: bool = True  # else they were there before, and nothing is wished for them
    trials: Sequence[TrialSeen]
    probe: bool = False  # whether cost is measured
    probes: Sequence[TrialSeen] = ()

    @property
    def own(self) -> list[TrialSeen]:
        """Trainings and probes; none where its runs were there before it."""
        return [*self.trials, *self.probes] if self.owns_runs else []


def decide(now: ComparisonSeen) -> list[Step]:
    """The next steps, made together in one transaction; none where the comparison waits."""
    wanted = steps_of_wishes(now)
    return _active(now) if wanted is None else wanted


def block_order(study_seed: int, block: int, variants: Sequence[str]) -> tuple[str, ...]:
    """The variants in the order in which a block's experiments are queued."""
    order = sorted(variants)
    random.Random(f"{study_seed}:{block}").shuffle(order)  # drawn again alike, not secret
    return tuple(order)


def _active(now: ComparisonSeen) -> list[Step]:
    if (failure := _given_up(now)) is not None:
        return [failure]
    begun = 1 + max((trial.block for trial in now.trials), default=-1)
    still_open = sum(trial.is_open for trial in now.trials)
    if begun < now.seeds:
        room = MOST_OPEN - still_open >= len(now.variants) or not still_open
        return [_block(now, begun)] if room else []
    if still_open:
        return []
    if now.precision is None or now.seeds_chosen:
        return _end(now, StudyMove(StudyState.SUCCEEDED))
    if all(trial.counts for trial in now.trials):
        return [_choose_seeds(now, now.precision)]
    missing = sum(not trial.counts for trial in now.trials)
    message = f"the number of seeds could not be chosen: {missing} of the first {len(now.trials)} runs have no number"
    return _end(now, StudyMove(StudyState.SUCCEEDED, message=message))


def _end(now: ComparisonSeen, end: StudyMove) -> list[Step]:
    """Measure what is to be measured of cost, one variant at a time, and end. A probe that fails keeps nothing from it.

    Last, because the verdicts wait for nothing then, and no training of this comparison is beside a probe.
    """
    if any(probe.is_open for probe in now.probes):
        return []
    begun = {now.control, *(probe.variant for probe in now.probes)}
    left = [name for name in now.variants if name not in begun] if now.probe else []
    if not left:
        return [end]
    return [BeginTrials((PlannedTrial(PROBE_BLOCK, seed_of(now.seed, 0), left[0], against=now.control),))]


def _block(now: ComparisonSeen, block: int) -> BeginTrials:
    seed = seed_of(now.seed, block)
    order = block_order(now.seed, block, now.variants)
    return BeginTrials(tuple(PlannedTrial(block, seed, variant) for variant in order))


def _choose_seeds(now: ComparisonSeen, rule: Precision) -> PlanSeeds:
    """Stein's second stage: the pilot's spread alone decides how many seeds there will be, for all variants."""
    reached = {(trial.variant, trial.block): trial.correct for trial in now.trials}
    counts = {name: np.array([reached[name, block] for block in range(now.seeds)]) for name in now.variants}
    measured = Measured(
        control=now.control,
        variants={name: Scores(counts=values) for name, values in counts.items()},
        images=now.images or 0,
        pairs=now.pairs,
        stopping=rule,
    )
    seeds = judge(measured).planned
    return PlanSeeds(seeds, f"{seeds} seeds, chosen by the spread of the first {now.seeds}")


def _given_up(now: ComparisonSeen) -> StudyMove | None:
    """Where the experiments that ended last all failed: whatever is wrong would fail the others too."""
    ended = sorted((trial for trial in now.trials if not trial.is_open), key=lambda trial: -trial.number)
    failed = list(takewhile(lambda trial: trial.is_broken, ended))
    if len(failed) < max(MOST_FAILED_IN_A_ROW, len(now.variants)):
        return None
    told = commonest((str(trial.reason), trial.message) for trial in failed)
    message = f"{len(failed)} experiments failed one after the other, most often with {told}"
    return StudyMove(StudyState.STOPPING, StudyReason.EXPERIMENTS_FAILED, message)
