"""Proposals by Optuna's samplers, made by a process of its own."""

import math
import os
import random
import signal

import optuna
import pytest

from service.domain.studies import StudyState
from service.errors import ProposalUnavailable
from service.sweeps.proposal_process import propose
from service.sweeps.proposer import Proposer
from tests.support.dispatching import tick
from tests.support.studies.sweeping import submitted
from tests.support.waiting import wait_until

RATE = {"name": "lr", "low": 0.01, "high": 1.0, "log": True, "whole": False, "choices": None, "when": []}
KIND = {"name": "kind", "low": 0.0, "high": 0.0, "log": False, "whole": False, "choices": 3, "when": []}
SIZE = {"name": "size", "low": 2, "high": 32, "log": True, "whole": True, "choices": None, "when": [["kind", [1, 2]]]}


def drawn(rng: random.Random) -> dict:
    kind = rng.randrange(3)
    params = {"lr": rng.uniform(0.01, 1), "kind": kind}
    return params | ({"size": rng.randint(2, 32)} if kind else {})


def tpe(told: list, **changes: object) -> dict:
    request = {"method": "tpe", "mode": "max", "seed": 3, "dimensions": [RATE, KIND, SIZE], "pending": []}
    return request | {"told": told} | changes


def good(params: dict) -> float:
    return -abs(params["lr"] - 0.3) + 0.1 * (params["kind"] == 2)


@pytest.fixture
def proposer():
    made = Proposer()
    yield made
    made.close()


def answer(proposer: Proposer, request: dict, study: str = "s") -> dict:
    assert proposer.ask(study, request) is None
    wait_until(lambda: study in proposer.answered(), "a proposal")
    found = proposer.ask(study, request)
    assert found is not None
    return found


def test_the_same_request_has_the_same_answer_from_any_process(proposer):
    rng = random.Random(1)
    told = [(params := drawn(rng), good(params)) for _ in range(20)]
    first = answer(proposer, tpe(told))
    process = proposer._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert answer(proposer, tpe(told), "another") == first == propose(tpe(told))
    assert propose(tpe(told, seed=4)) != first


def test_conditions_hold_and_failed_trials_are_avoided():
    rng = random.Random(2)
    told = [(params := drawn(rng), None if params["kind"] == 1 else good(params)) for _ in range(60)]
    proposed = [propose(tpe(told, seed=seed)) for seed in range(30)]
    assert all(("size" in params) == (params["kind"] > 0) for params in proposed)
    assert sum(params["kind"] == 1 for params in proposed) <= 5
    assert sum(params["kind"] == 2 for params in proposed) >= 15
    assert all(0.01 <= params["lr"] <= 1 for params in proposed)


@pytest.mark.parametrize("told", [[], [({"lr": 0.1, "kind": 0}, None)] * 12])
def test_where_nothing_is_known_something_is_proposed(told):
    assert propose(tpe(told)).keys() >= {"lr", "kind"}


def test_what_is_asked_for_no_more_is_forgotten(proposer):
    assert proposer.ask("s", tpe([])) is None
    later = tpe([({"lr": 0.1, "kind": 0}, 0.5)] * 12)
    assert proposer.ask("s", later) is None
    wait_until(lambda: proposer.ask("s", later) is not None, "a proposal")


def test_cma_es_proposes_what_a_study_that_was_never_forgotten_does():
    """Every proposal is made from the rows alone: it must be that of one sampler that has seen all of them."""
    dimensions = [RATE, SIZE | {"when": []}]
    study = optuna.create_study(direction="minimize")
    asked, told, results = [], [], []
    for number in range(48):
        request = {"method": "cmaes", "mode": "min", "seed": number, "dimensions": dimensions}
        params = propose(request | {"asked": asked, "told": told})
        study.sampler = optuna.samplers.CmaEsSampler(seed=number)
        trial = study.ask()
        live = {"lr": trial.suggest_float("lr", 0.01, 1, log=True), "size": trial.suggest_int("size", 2, 32, log=True)}
        assert params == live
        asked.append({"params": params, "told": told, "seed": number})
        result = (math.log(params["lr"] / 0.8)) ** 2 + (math.log(params["size"] / 28)) ** 2
        study.tell(trial, result)
        results.append(result)
        told = [(number, result)]
    assert sum(results[-12:]) < 0.5 * sum(results[:12])


def test_a_sampler_that_fails_is_told_by_name(proposer):
    with pytest.raises(ProposalUnavailable, match="no values were proposed: KeyError: 'dimensions'"):
        answer(proposer, {"method": "tpe", "mode": "max"})


def test_a_sweep_whose_sampler_fails_again_and_again_ends_and_can_be_retried(dispatcher, studies, monkeypatch):
    monkeypatch.setattr("service.sweeps.planner.needs_process", lambda *_: True)
    monkeypatch.setattr(Proposer, "_say", lambda *_: "")
    study = submitted(studies)

    def ended() -> bool:
        tick(dispatcher)
        dispatcher.clock.advance(30)
        return studies.get(study.id).state == StudyState.FAILED

    wait_until(ended, "the end of the sweep")
    now = studies.get(study.id)
    assert (now.reason, "is Optuna installed here?" in now.message) == ("PROPOSALS_FAILED", True)
    monkeypatch.undo()
    assert studies.retry(study.id, by="ada").state == StudyState.ACTIVE
