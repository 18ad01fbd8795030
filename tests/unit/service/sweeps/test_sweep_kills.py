"""Dispatchers that are killed, or contend, change nothing of what a sweep tries and decides; nor do labels of test."""

import random

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from service.cluster.base import Node
from service.database.models.experiments import Experiment
from service.database.models.studies import Trial
from service.dispatcher.dispatcher import Dispatcher
from service.domain.states import TERMINAL
from service.domain.studies import StudyKind, StudyState
from service.errors import NotLeading, StaleMove
from service.studies.controller import to_submit
from tests.support.dispatching import tick
from tests.support.studies.running_sweeps import finish, live_and_die, rows, told
from tests.support.studies.sweeping import GRID, report, submitted

ONE_AT_A_TIME = (Node("node-1", 1.0, 0.0, 1.0, 0.0),)


@pytest.mark.parametrize(
    ("method", "limits", "writes"),
    [
        ("tpe", {"trials": 14, "concurrent": 2}, 4),
        pytest.param("tpe", {"trials": 16, "concurrent": 3}, 7, marks=pytest.mark.slow),
        pytest.param("cmaes", {"trials": 8, "concurrent": 2}, 9, marks=pytest.mark.slow),
        ("random", {"trials": 8, "concurrent": 3}, 3),
    ],
)
def test_a_killed_dispatcher_decides_as_if_it_had_never_been_killed(
    method, limits, writes, database, cluster, settings, clock, studies
):
    """One after the other dies right behind its first, its second, … transaction; others lost the searcher when they
    were restored (ray#30861)."""
    cluster.nodes = ONE_AT_A_TIME
    numbers = {"search": {"train.optimizer.lr": {"log": [0.01, 1]}, "train.optimizer.momentum": {"uniform": [0, 0.9]}}}
    changes = {"method": {"type": method, "seed": 3}, "limits": limits} | (numbers if method == "cmaes" else {})
    whole = submitted(studies, **changes)
    first = Dispatcher(database, cluster, settings, clock=clock)
    finish(first, studies, whole.id)
    first.studies.close()
    first.leadership.release()
    killed = submitted(studies, **changes)
    kills = 0
    while studies.get(killed.id).state != StudyState.SUCCEEDED:
        assert kills < 300, rows(studies, killed.id)
        live_and_die(Dispatcher(database, cluster, settings, clock=clock), clock, writes=1 + kills % writes)
        kills += 1
    assert kills > 5
    assert told(database, killed.id) == told(database, whole.id)


def test_a_grid_has_each_point_once_whoever_is_killed(database, cluster, settings, clock, studies):
    """With 8 at a time; others tried points twice (optuna#5139, optuna#4627)."""
    study = submitted(studies, method="grid", search=GRID, limits={"concurrent": 8})
    chance, kills = random.Random(5), 0
    while studies.get(study.id).state != StudyState.SUCCEEDED:
        assert kills < 400
        live_and_die(Dispatcher(database, cluster, settings, clock=clock), clock, writes=chance.randint(1, 12))
        kills += 1
    found = rows(studies, study.id)
    assert len(found) == 24
    assert len({trial.params_hash for trial in found}) == 24
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Experiment)) == 24


def test_the_database_refuses_a_point_of_a_grid_twice(database, studies, dispatcher):
    study = submitted(studies, method="grid", search=GRID)
    tick(dispatcher)
    first = rows(studies, study.id)[0]
    with pytest.raises(IntegrityError), database.writing() as session:
        again = {name: getattr(first, name) for name in ("study_id", "variant", "seed", "params", "params_hash")}
        session.add(Trial(number=99, block=99, experiment_id="other", **again))


def step(dispatcher: Dispatcher) -> None:
    """As its loop does it."""
    try:
        tick(dispatcher)
    except NotLeading:
        dispatcher.renewed_at = None


def test_two_dispatchers_begin_exactly_what_was_asked_for(database, cluster, settings, clock, studies):
    """The lease goes from one to the other in the middle of things (optuna#3518, wandb#8549)."""
    study = submitted(studies, limits={"trials": 50, "concurrent": 7})
    both = [Dispatcher(database, cluster, settings, clock=clock) for _ in range(2)]
    both[1].leadership.holder = "the other"
    chance = random.Random(2)
    refused = 0
    for _ in range(600):
        if studies.get(study.id).state == StudyState.SUCCEEDED:
            break
        one, other = chance.sample(both, 2)
        if chance.random() < 0.3:
            study_then, trials_then = other.studies.rows.load(study.id)
            planner = other.studies.planners[StudyKind.SWEEP]
            steps = planner.steps(study_then, trials_then)
            specs = {trial: planner.spec(study_then, trial) for trial in to_submit(steps)}
            other.leadership.release()  # which does not know of it, and goes on as if it led
            step(one)
            if steps:
                with pytest.raises((NotLeading, StaleMove)):
                    other.studies.rows.apply(study_then, trials_then, steps, specs)
                refused += 1
        step(one)
        with database.reading() as session:
            still_open = session.scalar(select(func.count()).where(Experiment.state.not_in(TERMINAL)))
            assert still_open <= 7
    found = rows(studies, study.id)
    assert (studies.get(study.id).state, len(found)) == (StudyState.SUCCEEDED, 50)
    with database.reading() as session:
        assert session.scalar(select(func.count()).select_from(Experiment)) == 50
    assert refused > 3
    for one in both:
        one.studies.close()


def test_labels_of_test_move_no_decision(database, cluster, settings, clock, studies):
    cluster.nodes = ONE_AT_A_TIME
    seen = []
    for test in (0.1, 0.9):
        cluster.metrics = report(test=test)
        dispatcher = Dispatcher(database, cluster, settings, clock=clock)
        study = submitted(studies, method="tpe", limits={"trials": 13, "concurrent": 2})
        finish(dispatcher, studies, study.id)
        dispatcher.studies.close()
        dispatcher.leadership.release()
        seen.append(told(database, study.id))
        assert {row.experiment.progress["metrics"]["test/top1"] for row in studies.trials(study.id)} == {test}
    assert seen[0] == seen[1]
