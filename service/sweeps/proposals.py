"""What the process that proposes is asked, and what its answer means. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.domain.studies import TrialOutcome, seed_of
from service.schemas.sweeps import CMAES, TPE, SweepSpec
from service.studies.rows import TrialState
from service.sweeps.decide import GIVEN_UP, Wanted
from service.sweeps.proposal_process import STARTUP_TRIALS
from service.sweeps.space import Params, Space, alike

Told = list[tuple[Params, float | None]]


def needs_process(sweep: SweepSpec, wanted: Wanted, trials: Sequence[TrialState]) -> bool:
    """Whether a sampler is to be asked; while too little is known, values are drawn at random."""
    by_number = {one.number: one for one in trials}
    known = sum(by_number[number].outcome == TrialOutcome.OK for number in wanted.informed_by if number in by_number)
    if isinstance(sweep.method, TPE):
        return known >= STARTUP_TRIALS
    return isinstance(sweep.method, CMAES) and known > 0


def request_for(
    sweep: SweepSpec, study_seed: int, space: Space, wanted: Wanted, trials: Sequence[TrialState]
) -> dict[str, Any]:
    """All that a proposal depends on. The seed of proposal k is a function of the study's and of k."""
    by_number = {one.number: one for one in trials}
    told = [by_number[number] for number in wanted.informed_by if by_number[number].outcome not in GIVEN_UP]
    request: dict[str, Any] = {
        "method": sweep.method.type,
        "mode": sweep.direction,
        "seed": seed_of(study_seed, wanted.number),
        "dimensions": _dimensions(space),
    }
    if isinstance(sweep.method, TPE):
        known = {*wanted.informed_by}
        waiting = [one for one in trials if one.number not in known]
        return request | {
            "told": [(_numbers(space, one.params or {}), one.value) for one in told],
            "pending": [_numbers(space, one.params or {}) for one in waiting],
        }
    return request | _history(study_seed, wanted, trials)


def values_of(space: Space, answer: Mapping[str, Any]) -> Params:
    """The values that the process means: choices are numbers of them there."""
    by_name = {dimension.name: dimension for dimension in space.dimensions}
    return {
        name: value if (choices := by_name[name].choices) is None else choices[value] for name, value in answer.items()
    }


def _history(study_seed: int, wanted: Wanted, trials: Sequence[TrialState]) -> dict[str, Any]:
    """Every proposal in turn, and what each was told first that those before it had not been."""
    by_number = {one.number: one for one in trials}
    heard: set[int] = set()

    def news(informed_by: Sequence[int]) -> list[tuple[int, float | None]]:
        ended = [number for number in informed_by if by_number[number].outcome not in (*GIVEN_UP, None)]
        new = [number for number in ended if number not in heard]
        heard.update(new)
        return [(number, by_number[number].value) for number in new]

    asked = [
        {"params": one.params, "told": news(one.informed_by), "seed": seed_of(study_seed, one.number)} for one in trials
    ]
    return {"asked": asked, "told": news(wanted.informed_by)}


def _dimensions(space: Space) -> list[dict[str, Any]]:
    by_name = {dimension.name: dimension for dimension in space.dimensions}
    return [
        {
            "name": one.name,
            "low": one.low,
            "high": one.high,
            "log": one.log,
            "whole": one.whole,
            "choices": None if one.choices is None else len(one.choices),
            "when": [
                (parent, [_number(by_name[parent].choices or (), value) for value in values])
                for parent, values in one.when
            ],
        }
        for one in space.dimensions
    ]


def _numbers(space: Space, params: Mapping[str, Any]) -> Params:
    """The values with choices as numbers of them."""
    return {
        one.name: params[one.name] if one.choices is None else _number(one.choices, params[one.name])
        for one in space.dimensions
        if one.name in params
    }


def _number(choices: Sequence[Any], value: Any) -> int:
    return next(number for number, choice in enumerate(choices) if alike(choice, value))
