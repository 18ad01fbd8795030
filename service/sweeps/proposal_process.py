"""Propose values by Optuna's samplers: `python -m service.sweeps.proposal_process`.

A process of its own: what a sampler does with its time is not the dispatcher's. One line of JSON in, one line out; it
ends with its input, or after a while without any. It remembers nothing: every request says all that is to be known, so
the same request has the same answer. The one file that knows Optuna, of which it uses samplers alone.
"""

import json
import os
import select
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

IDLE_SECONDS = 600.0
STARTUP_TRIALS = 10  # with a value; before that, values are drawn at random
Params = dict[str, Any]


def propose(request: Mapping[str, Any]) -> Params:
    """The values of the next proposal; choices are numbers of them, counted from 0.

    `dimensions` are name, low, high, log, whole, choices (how many, or null) and `when` (name, numbers of choices);
    `told` holds pairs of values and result (null: it failed) in the order in which they ended, `pending` the values of
    the others. For CMA-ES `asked` holds every earlier proposal, with what was told right before it.
    """
    warnings.simplefilter("ignore")  # that something is experimental: its version is fixed
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize" if request["mode"] == "max" else "minimize")
    return _cmaes(study, request) if request["method"] == "cmaes" else _tpe(study, request)


def _tpe(study: "Study", request: Mapping[str, Any]) -> Params:
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState, create_trial

    dimensions = request["dimensions"]
    known = {dimension["name"]: _distribution(dimension) for dimension in dimensions}
    results = _with_failed_last([result for _, result in request["told"]], request["mode"])
    ended = [
        (params, result, TrialState.COMPLETE) for (params, _), result in zip(request["told"], results, strict=True)
    ]
    pending = [(params, None, TrialState.RUNNING) for params in request["pending"]]
    study.add_trials(
        [
            create_trial(
                params=params,
                distributions={name: known[name] for name in params},
                value=result,
                state=TrialState.FAIL if state is TrialState.COMPLETE and result is None else state,
            )
            for params, result, state in (*ended, *pending)
        ]
    )
    study.sampler = TPESampler(
        seed=request["seed"],
        n_startup_trials=STARTUP_TRIALS,
        multivariate=True,
        group=any(dimension["when"] for dimension in dimensions),
        constant_liar=True,  # what still trains counts as bad, so that not all try the same at a time
    )
    return _ask(study, dimensions)


def _cmaes(study: "Study", request: Mapping[str, Any]) -> Params:
    """By asking once more for all earlier proposals: the sampler's memory is in the trials of the study."""
    from optuna.samplers import CmaEsSampler
    from optuna.trial import TrialState

    results: list[float | None] = []

    def tell(told: Sequence[tuple[int, float | None]]) -> None:
        for number, result in told:
            results.append(result)
            value = _with_failed_last(results, request["mode"])[-1]
            study.tell(number, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)

    class Known(CmaEsSampler):
        """Does all that the sampler does, and answers with what it is known to have answered then."""

        def __init__(self, params: Params, seed: int) -> None:
            super().__init__(seed=seed)
            self.params = params

        def sample_relative(self, *words: Any) -> Params:
            asked_for = super().sample_relative(*words)
            return {name: self.params[name] for name in asked_for}

        def sample_independent(self, *of_trial: Any) -> Any:  # study, trial, name, distribution
            return self.params[of_trial[2]]

    for earlier in request["asked"]:
        tell(earlier["told"])
        study.sampler = Known(earlier["params"], earlier["seed"])
        _ask(study, request["dimensions"])
    tell(request["told"])
    study.sampler = CmaEsSampler(seed=request["seed"])
    return _ask(study, request["dimensions"])


def _ask(study: "Study", dimensions: Sequence[Mapping[str, Any]]) -> Params:
    trial = study.ask()
    params: Params = {}
    for one in dimensions:
        if all(name in params and params[name] in numbers for name, numbers in one["when"]):
            params[one["name"]] = _suggested(trial, one)
    return params


def _suggested(trial: "Trial", dimension: Mapping[str, Any]) -> Any:
    name, low, high = dimension["name"], dimension["low"], dimension["high"]
    if dimension["choices"] is not None:
        return trial.suggest_categorical(name, range(dimension["choices"]))
    if dimension["whole"]:
        return trial.suggest_int(name, int(low), int(high), log=dimension["log"])
    return trial.suggest_float(name, low, high, log=dimension["log"])


def _distribution(dimension: Mapping[str, Any]) -> "BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension["choices"] is not None:
        return CategoricalDistribution(range(dimension["choices"]))
    if dimension["whole"]:
        return IntDistribution(int(dimension["low"]), int(dimension["high"]), log=dimension["log"])
    return FloatDistribution(dimension["low"], dimension["high"], log=dimension["log"])


def _with_failed_last(results: Sequence[float | None], mode: str) -> list[float | None]:
    """Those that failed have the worst result of the others; None where there is none."""
    known = [result for result in results if result is not None]
    worst = None if not known else min(known) if mode == "max" else max(known)
    return [worst if result is None else result for result in results]


def answers(requests: Iterator[str]) -> Iterator[str]:
    """One line for each request: the values, or why there are none."""
    for line in requests:
        try:
            yield json.dumps({"params": propose(json.loads(line))})
        except Exception as error:  # whatever a library raises, the next request is answered
            yield json.dumps({"error": f"{type(error).__name__}: {error}"})


def main(requests: TextIO, told: TextIO) -> None:
    """Answer until the input ends, or nothing was asked for long."""

    def lines() -> Iterator[str]:
        while select.select([requests], [], [], IDLE_SECONDS)[0] and (line := requests.readline()):
            yield line

    for answer in answers(lines()):
        print(answer, file=told, flush=True)


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    main(sys.stdin, channel)
