"""A sweep as the controller of studies takes it: rows in, steps out."""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from cbam_core.errors import SpecError
from cbam_core.spec import ExperimentSpec
from service.database.models.studies import Study
from service.domain.states import Desired, State
from service.domain.studies import (
    BeginTrials,
    EndTrials,
    PlannedTrial,
    RetryTrials,
    Step,
    StudyMove,
    StudyReason,
    StudyState,
    WishFor,
)
from service.domain.values import utc_now
from service.errors import InvalidFields, ProposalUnavailable
from service.schemas.sweeps import CMAES, TPE, Grid, SweepSpec
from service.studies.controller import StudyPlanner
from service.studies.life import steps_unreadable
from service.studies.rows import Reading, TrialState, Unobserved
from service.sweeps.decide import Limits, SweepSeen, TrialSeen, Wanted, advance, decide
from service.sweeps.proposals import needs_process, request_for, values_of
from service.sweeps.proposer import Proposer
from service.sweeps.space import Params, Space, canonical, space_of
from service.sweeps.stored import BASE, limits_of, sweep_of
from service.sweeps.submission import trial_spec
from workers.protocol.storage import ExperimentFolder

MOST_STEPS = 200  # in one transaction
MOST_FAILURES = 3  # of the sampler, one after the other, a minute apart
NO_LIMITS = Limits(trials=0, concurrent=1, failed=1)


class SweepPlanner(StudyPlanner):
    """What comes next in a sweep. Proposals that take a sampler are waited for without blocking."""

    def __init__(self, proposer: Proposer | None = None, *, now: Callable[[], datetime] = utc_now) -> None:
        self._proposer = proposer or Proposer()
        self._now = now
        self._failed: Counter[str] = Counter()  # by study, since the last proposal

    def steps(self, study: Study, trials: Sequence[TrialState]) -> list[Step]:
        """What to do now. Raises ProposalUnavailable, before it has failed so often that the sweep ends."""
        try:
            sweep, limits = sweep_of(study), limits_of(study)
        except SpecError as error:
            return steps_unreadable(_seen(study, trials, NO_LIMITS, "", is_over=False), str(error))
        left = self.seconds_left(study)
        now = _seen(study, trials, limits, sweep.metric, is_over=left is not None and left <= 0)
        steps: list[Step] = []
        for _ in range(MOST_STEPS):
            new = self._next(study, sweep, now, trials)
            steps += new
            now, trials = advance(now, new), _after(trials, new)
            if not new or any(isinstance(step, StudyMove | WishFor) for step in new):
                break
        return steps

    def _next(self, study: Study, sweep: SweepSpec, now: SweepSeen, trials: Sequence[TrialState]) -> Sequence[Step]:
        """The next step, and those that go with it; none where a proposal is still to come."""
        decided = decide(now)
        if decided.retries:
            number = decided.retries[0]
            again = next(one for one in trials if one.number == number)
            planned = _planned(sweep, study, number, dict(again.params or {}), ())
            return [RetryTrials(((number, planned),))]
        if not decided.proposals:
            return decided.steps
        wanted = decided.proposals[0]
        try:
            params = self._proposed(study, sweep, wanted, trials)
        except ProposalUnavailable as error:
            return [self._given_up(study, error)]
        if params is None:
            return []
        informed = wanted.informed_by if isinstance(sweep.method, TPE | CMAES) else ()
        return [BeginTrials((_planned(sweep, study, wanted.number, params, informed),))]

    def _given_up(self, study: Study, error: ProposalUnavailable) -> StudyMove:
        """The end of a sweep whose sampler has failed so often; before that, raises the error."""
        self._failed[study.id] += 1
        if self._failed[study.id] < MOST_FAILURES:
            raise error
        del self._failed[study.id]
        return StudyMove(StudyState.STOPPING, StudyReason.PROPOSALS_FAILED, str(error))

    def spec(self, study: Study, trial: PlannedTrial) -> ExperimentSpec:
        """What a trial is submitted as."""
        return trial_spec(study.specs[BASE], _read(trial), study=study.name, number=trial.block)

    def read(self, study: Study, of: Unobserved, folder: ExperimentFolder) -> Reading:  # noqa: ARG002
        """Nothing: trials are ranked by what their rows say."""
        return Reading()

    def seconds_left(self, study: Study) -> float | None:
        """Seconds until its hours are over; None where it has no such limit."""
        hours = (study.limits or {}).get("hours")
        if not isinstance(hours, int | float):
            return None
        return (study.created_at + timedelta(hours=hours) - self._now()).total_seconds()

    def answered(self) -> frozenset[str]:
        """Studies whose proposals have been made since."""
        return self._proposer.answered()

    def close(self) -> None:
        """End the process that proposes."""
        self._proposer.close()

    def _proposed(self, study: Study, sweep: SweepSpec, wanted: Wanted, trials: Sequence[TrialState]) -> Params | None:
        search = canonical(study.spec["search"])
        if isinstance(sweep.method, Grid):
            return _grid(search)[wanted.number]
        space = _space(search)
        if not needs_process(sweep, wanted, trials):
            return space.draw(study.seed, wanted.number)
        answer = self._proposer.ask(study.id, request_for(sweep, study.seed, space, wanted, trials))
        if answer is None:
            return None
        self._failed.pop(study.id, None)
        return values_of(space, answer)


@lru_cache(maxsize=200)
def _space(search: str) -> Space:
    """Read once: a search never changes."""
    fields = {"name": "x", "base": {"template": "x"}, "search": json.loads(search)}
    return space_of(SweepSpec.model_validate(fields, strict=False).search)


@lru_cache(maxsize=20)
def _grid(search: str) -> list[Params]:
    return list(_space(search).grid())


def _planned(sweep: SweepSpec, study: Study, number: int, params: Params, informed_by: tuple[int, ...]) -> PlannedTrial:
    refused, base = None, study.specs[BASE]
    try:
        seed = trial_spec(base, params, study=study.name, number=number).train.seed
    except InvalidFields as error:
        refused, seed = str(error), base["train"]["seed"]
    return PlannedTrial(
        number, seed, sweep.method.type, params=canonical(params), informed_by=informed_by, refused=refused
    )


def _after(trials: Sequence[TrialState], steps: Sequence[Step]) -> list[TrialState]:
    """The trials as they are once these steps are made, as far as proposals depend on it."""
    ends = {one.number: one for step in steps if isinstance(step, EndTrials) for one in step.ends}
    begun = [trial for step in steps if isinstance(step, BeginTrials) for trial in step.trials]
    ended = [
        one
        if (end := ends.get(one.number)) is None
        else replace(one, outcome=end.outcome, place=end.place, value=end.value)
        for one in trials
    ]
    return ended + [_begun(trial) for trial in begun]


def _begun(trial: PlannedTrial) -> TrialState:
    return TrialState(
        number=trial.block,
        block=trial.block,
        variant=trial.variant,
        is_observed=False,
        correct=None,
        images=None,
        state=State.QUEUED,
        desired=Desired.RUN,
        reason=None,
        message="",
        version=1,
        params=_read(trial),
        informed_by=trial.informed_by,
    )


def _read(trial: PlannedTrial) -> Params:
    params: Params = json.loads(trial.params or "{}")
    return params


def _seen(study: Study, trials: Sequence[TrialState], limits: Limits, metric: str, *, is_over: bool) -> SweepSeen:
    """A sweep's rows as `decide` takes them."""
    return SweepSeen(
        state=StudyState(study.state),
        desired=Desired(study.desired),
        reason=None if study.reason is None else StudyReason(study.reason),
        message=study.message,
        limits=limits,
        is_over=is_over,
        trials=[_trial_seen(trial, metric) for trial in trials],
    )


def _trial_seen(trial: TrialState, metric: str) -> TrialSeen:
    reported = trial.metrics.get(metric, "nothing")
    metric_value = float(reported) if isinstance(reported, int | float) else None
    if reported is None:  # as JSON holds what is not finite
        metric_value = math.nan
    return TrialSeen(
        number=trial.number,
        state=trial.state,
        desired=trial.desired,
        reason=trial.reason,
        message=trial.message,
        metric=metric_value,
        ended_at=0.0 if trial.ended_at is None else trial.ended_at.timestamp(),
        outcome=trial.outcome,
        place=trial.place,
        value=trial.value,
        why=trial.why,
    )
