"""A sweep as the controller of studies takes it: rows in, steps out."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from cbam_core.errors import SpecError
from cbam_core.spec import ExperimentSpec
from service.database.models.studies import Study
from service.domain.states import Desired
from service.domain.studies import (
    BeginTrials,
    EndTrials,
    PlannedTrial,
    RetryTrials,
    Step,
    StudyReason,
    StudyState,
)
from service.domain.values import utc_now
from service.errors import InvalidFields
from service.schemas.sweeps import CMAES, TPE, Grid, SweepSpec
from service.studies.controller import StudyPlanner
from service.studies.life import steps_unreadable
from service.studies.rows import Reading, TrialState, Unobserved
from service.sweeps.decide import Limits, SweepSeen, TrialSeen, Wanted, decide
from service.sweeps.proposals import needs_process, request_for, values_of
from service.sweeps.proposer import Proposer
from service.sweeps.space import Params, Space, canonical, space_of
from service.sweeps.stored import BASE, limits_of, sweep_of
from service.sweeps.submission import trial_spec
from workers.protocol.storage import ExperimentFolder

NO_LIMITS = Limits(trials=0, concurrent=1, failed=1)


class SweepPlanner(StudyPlanner):
    """What comes next in a sweep. Proposals that take a sampler are waited for without blocking."""

    def __init__(self, proposer: Proposer | None = None, *, now: Callable[[], datetime] = utc_now) -> None:
        self._proposer = proposer or Proposer()
        self._now = now

    def steps(self, study: Study, trials: Sequence[TrialState]) -> list[Step]:
        """What to do now. Raises ProposalUnavailable."""
        try:
            sweep, limits = sweep_of(study), limits_of(study)
        except SpecError as error:
            return steps_unreadable(_seen(study, trials, NO_LIMITS, "", is_over=False), str(error))
        left = self.seconds_left(study)
        decided = decide(_seen(study, trials, limits, sweep.metric, is_over=left is not None and left <= 0))
        steps = [*decided.steps]
        trials = _after(trials, steps)
        if begun := self._begun(study, sweep, decided.proposals, trials):
            steps.append(BeginTrials(tuple(begun)))
        if decided.retries:
            by_number = {one.number: one for one in trials}
            again = [(number, _planned_again(sweep, study, by_number[number])) for number in decided.retries]
            steps.append(RetryTrials(tuple(again)))
        return steps

    def spec(self, study: Study, trial: PlannedTrial) -> ExperimentSpec:
        """What a trial is submitted as."""
        return trial_spec(study.specs[BASE], _read(trial), study=study.name, number=trial.block)

    def read(self, study: Study, of: Unobserved, folder: ExperimentFolder) -> Reading:
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

    def _begun(
        self, study: Study, sweep: SweepSpec, wanted: Sequence[Wanted], trials: Sequence[TrialState]
    ) -> list[PlannedTrial]:
        """Those proposals that are made; each is made when those before it are."""
        space = _space(canonical(study.spec["search"]))
        begun: list[PlannedTrial] = []
        for one in wanted:
            params = self._proposed(study, sweep, space, one, trials, first=not begun)
            if params is None:
                break
            informed = isinstance(sweep.method, TPE | CMAES)
            begun.append(_planned(sweep, study, one.number, params, one.informed_by if informed else ()))
        return begun

    def _proposed(
        self,
        study: Study,
        sweep: SweepSpec,
        space: Space,
        wanted: Wanted,
        trials: Sequence[TrialState],
        *,
        first: bool,
    ) -> Params | None:
        if isinstance(sweep.method, Grid):
            return _grid(canonical(study.spec["search"]))[wanted.number]
        if not needs_process(sweep, wanted, trials):
            return space.draw(study.seed, wanted.number)
        if not first:  # it is to know of those before it, which are stored first
            return None
        answer = self._proposer.ask(study.id, request_for(sweep, study.seed, space, wanted, trials))
        return None if answer is None else values_of(space, answer)


@lru_cache(maxsize=200)
def _space(search: str) -> Space:
    """Read once: a search never changes."""
    fields = {"name": "x", "base": {"template": "x"}, "search": json.loads(search)}
    return space_of(SweepSpec.model_validate(fields, strict=False).search)


@lru_cache(maxsize=20)
def _grid(search: str) -> list[Params]:
    return list(_space(search).grid())


def _planned(
    sweep: SweepSpec, study: Study, number: int, params: Params, informed_by: tuple[int, ...]
) -> PlannedTrial:
    refused, base = None, study.specs[BASE]
    try:
        seed = trial_spec(base, params, study=study.name, number=number).train.seed
    except InvalidFields as error:
        refused, seed = str(error), base["train"]["seed"]
    return PlannedTrial(number, seed, sweep.method.type, canonical(params), informed_by, refused)


def _planned_again(sweep: SweepSpec, study: Study, trial: TrialState) -> PlannedTrial:
    return _planned(sweep, study, trial.number, dict(trial.params or {}), tuple(trial.informed_by))


def _after(trials: Sequence[TrialState], steps: Sequence[Step]) -> list[TrialState]:
    """The trials as they are once these steps are made."""
    ends = {one.number: one for step in steps if isinstance(step, EndTrials) for one in step.ends}
    return [
        one
        if (end := ends.get(one.number)) is None
        else replace(one, outcome=end.outcome, place=end.place, value=end.value)
        for one in trials
    ]


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
    reported = trial.metrics.get(metric)
    is_number = isinstance(reported, int | float) and not isinstance(reported, bool)
    return TrialSeen(
        number=trial.number,
        state=trial.state,
        desired=trial.desired,
        reason=trial.reason,
        message=trial.message,
        metric=float(reported) if is_number and reported is not None else None,
        ended_at=0.0 if trial.ended_at is None else trial.ended_at.timestamp(),
        outcome=trial.outcome,
        place=trial.place,
        value=trial.value,
        why=trial.why,
    )
