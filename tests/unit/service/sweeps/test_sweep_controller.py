"""Sweeps in the dispatcher's tick, over a real database and a fake cluster whose runs report what their spec says."""

import random
from contextlib import contextmanager

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError

from service.cluster.base import GangKey, Node
from service.database.models.experiments import Experiment
from service.database.models.studies import Decision, Study, Trial
from service.dispatcher.dispatcher import Dispatcher
from service.domain.roles import LOCAL
from service.domain.states import TERMINAL, State
from service.domain.studies import StudyKind, StudyState
from service.errors import IllegalStudyAction, InvalidField, NothingToRetry, NotLeading, StaleMove
from service.experiments.actions import act
from service.studies.controller import _submitted as submitted_in
from tests.support.dispatching import tick
from tests.support.studies.sweeping import GRID, report, submitted, value_of

ONE_AT_A_TIME = (Node("node-1", 1.0, 0.0, 1.0, 0.0),)


def finish(dispatcher, studies, study_id, state=StudyState.SUCCEEDED):
    for _ in range(400):
        if studies.get(study_id).state == state:
            return
        tick(dispatcher)
        wait_for_proposals(dispatcher)
    pytest.fail(f"still {studies.get(study_id).state}: {rows(studies, study_id)}")


def rows(studies, study_id: str) -> list[Trial]:
    return [row.trial for row in studies.trials(study_id)]


def told(database, study_id: str) -> tuple[list[tuple], list[tuple]]:
    """Every trial and every decision, without what differs from one study to the next: ids and times."""
    columns = (Trial.number, Trial.params, Trial.params_hash, Trial.informed_by, Trial.outcome, Trial.place)
    trial = select(*columns, Trial.value, Trial.seed).where(Trial.study_id == study_id).order_by(Trial.number)
    decided = select(Decision.kind, Decision.from_state, Decision.to_state, Decision.payload)
    with database.reading() as session:
        trials = session.execute(trial)
        decisions = session.execute(decided.where(Decision.study_id == study_id).order_by(Decision.seq))
        return [tuple(row) for row in trials], [tuple(row) for row in decisions]


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("random", {"limits": {"trials": 12, "concurrent": 3}}),
        ("tpe", {"limits": {"trials": 16, "concurrent": 3}}),
        ("grid", {"search": GRID, "limits": {"concurrent": 8}}),
    ],
)
def test_a_sweep_trains_its_trials_and_says_what_each_reached(dispatcher, studies, method, changes):
    study = submitted(studies, method=method, **changes)
    finish(dispatcher, studies, study.id)
    found = studies.trials(study.id)
    assert [row.trial.number for row in found] == list(range(len(found)))
    assert len(found) == {"random": 12, "tpe": 16, "grid": 24}[method]
    for row in found:
        spec, params = row.experiment.spec, row.trial.params
        assert row.experiment.tags == {"sweep": study.name, "trial": str(row.trial.number)}
        assert spec["train"]["optimizer"]["lr"] == params["train.optimizer.lr"]
        assert spec["model"]["attention"]["type"] == params["model.attention.type"]
        assert ("model.attention.reduction" in params) == (
            method != "grid" and spec["model"]["attention"]["type"] != "none"
        )
        assert row.trial.outcome == "OK"
        assert row.trial.value == row.experiment.progress["metrics"]["val/top1"]
        assert (len(row.trial.informed_by) > 0) == (method == "tpe" and row.trial.number >= 3)
    assert sorted(row.trial.place for row in found) == list(range(len(found)))


def test_a_sampler_comes_nearer_to_the_best_than_chance_does(dispatcher, studies):
    best = {}
    for method in ("random", "tpe"):
        study = submitted(studies, method={"type": method, "seed": 1}, limits={"trials": 24, "concurrent": 1})
        finish(dispatcher, studies, study.id)
        best[method] = sorted(trial.value for trial in rows(studies, study.id))[-10:]
    assert sum(best["tpe"]) > sum(best["random"])


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


def live_and_die(dispatcher: Dispatcher, clock, *, writes: int) -> None:
    """After so many transactions, but for renewals of the lease: what would have followed in memory is lost."""
    left = writes
    for its_rows in (dispatcher.store, dispatcher.studies.rows):
        writing = its_rows._writing

        @contextmanager
        def counted(writing=writing):
            nonlocal left
            with writing() as session:
                yield session
            left -= 1
            if not left:
                raise Killed

        its_rows._writing = counted
    with pytest.raises(Killed):
        for _ in range(400):
            dispatcher.tick()
            wait_for_proposals(dispatcher)
            clock.advance(2)
    dispatcher.studies.close()
    dispatcher.leadership.release()


def wait_for_proposals(dispatcher: Dispatcher) -> None:
    for planner in dispatcher.studies.planners.values():
        for _, future in getattr(getattr(planner, "_proposer", None), "_asked", {}).values():
            future.exception()


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
            specs = {trial: planner.spec(study_then, trial) for trial in submitted_in(steps)}
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


def test_values_that_are_not_finite_rank_last_and_end_nothing(dispatcher, studies, cluster):
    cluster.metrics = report(lambda launch: float("nan") if launch.spec.name.endswith("0") else value_of(launch))
    study = submitted(studies, method="tpe", limits={"trials": 14, "concurrent": 2})
    finish(dispatcher, studies, study.id)
    outcomes = [trial.outcome for trial in rows(studies, study.id)]
    assert outcomes == ["LOSS_NOT_FINITE" if number % 10 == 0 else "OK" for number in range(14)]


def test_a_failed_a_cancelled_and_a_deleted_trial_end_nothing(dispatcher, studies, store, cluster):
    """Others hung for ever, or crashed (katib#1830, clearml#644)."""
    cluster.steps_per_look = 0
    study = submitted(studies, method="tpe", limits={"trials": 13, "concurrent": 3})
    tick(dispatcher, 4)
    first, second, third = (trial.experiment_id for trial in rows(studies, study.id))
    act(store, first, "cancel", caller=LOCAL)
    act(store, second, "cancel", caller=LOCAL)
    cluster.fail(GangKey(third, 1), "DATA_ERROR", "no such folder")
    applying, dispatcher.studies.tick = dispatcher.studies.tick, lambda: None
    tick(dispatcher, 4)
    store.delete(second, by="local")  # before anybody has seen its end
    dispatcher.studies.tick = applying
    cluster.steps_per_look = 5
    finish(dispatcher, studies, study.id)
    found = rows(studies, study.id)
    assert len(found) == 13
    assert [trial.outcome for trial in found[:3]] == ["CANCELLED", "DELETED", "DATA_ERROR"]
    assert {trial.outcome for trial in found[3:]} == {"OK"}


def test_a_point_whose_experiment_was_deleted_is_tried_again_by_a_retry(dispatcher, studies, store, database, cluster):
    """Others never ran it again (wandb#6594)."""
    cluster.steps_per_look = 0
    study = submitted(studies, method="grid", search=GRID, limits={"concurrent": 2})
    tick(dispatcher, 4)
    first = rows(studies, study.id)[0]
    act(store, first.experiment_id, "cancel", caller=LOCAL)
    applying, dispatcher.studies.tick = dispatcher.studies.tick, lambda: None
    tick(dispatcher, 4)
    store.delete(first.experiment_id, by="local")
    dispatcher.studies.tick = applying
    cluster.steps_per_look = 5
    finish(dispatcher, studies, study.id)
    assert rows(studies, study.id)[0].outcome == "DELETED"
    studies.retry(study.id, by="ada")
    finish(dispatcher, studies, study.id)
    found = rows(studies, study.id)
    assert {trial.outcome for trial in found} == {"OK"}
    assert (found[0].params, found[0].experiment_id != first.experiment_id) == (first.params, True)
    with pytest.raises(NothingToRetry):
        studies.retry(study.id, by="ada")


def test_a_retry_keeps_the_limit_of_trials_at_a_time(dispatcher, studies, database, cluster):
    cluster.steps_per_look = 0
    study = submitted(studies, limits={"trials": 20, "concurrent": 2, "failed": 6})
    while studies.get(study.id).state != StudyState.FAILED:
        for key, gang in list(cluster.gangs.items()):
            if gang.outcome is None:
                cluster.fail(key, "DATA_ERROR", "no such folder")
        tick(dispatcher)
    assert (
        "6 trials failed one after the other, most often with DATA_ERROR: no such folder"
        in studies.get(study.id).message
    )
    cluster.steps_per_look = 5
    studies.retry(study.id, by="ada")
    for _ in range(200):
        tick(dispatcher)
        with database.reading() as session:
            assert session.scalar(select(func.count()).where(Experiment.state.not_in(TERMINAL))) <= 2
    assert studies.get(study.id).state == StudyState.SUCCEEDED
    assert [trial.outcome for trial in rows(studies, study.id)] == ["OK"] * 20


def test_nothing_of_it_outlives_a_cancel(dispatcher, studies, cluster):
    """(katib#2061)"""
    cluster.steps_per_look = 0
    study = submitted(studies, limits={"trials": 20, "concurrent": 5})
    tick(dispatcher, 4)
    studies.wish(study.id, "cancel", by="local")
    finish(dispatcher, studies, study.id, StudyState.CANCELLED)
    assert {row.experiment.state for row in studies.trials(study.id)} == {State.CANCELLED}
    assert len(rows(studies, study.id)) == 5
    cluster.steps_per_look = 5
    studies.retry(study.id, by="local")
    finish(dispatcher, studies, study.id)
    assert [trial.outcome for trial in rows(studies, study.id)] == ["OK"] * 20


def test_a_pause_and_a_resume(dispatcher, studies, cluster):
    cluster.steps_per_look = 1
    study = submitted(studies)
    tick(dispatcher, 4)
    studies.wish(study.id, "pause", by="local")
    finish(dispatcher, studies, study.id, StudyState.PAUSED)
    tick(dispatcher, 10)
    assert len(rows(studies, study.id)) == 2
    studies.wish(study.id, "resume", by="local")
    finish(dispatcher, studies, study.id)


def test_its_hours_end_it_though_no_row_changes(dispatcher, studies, cluster, database, monkeypatch):
    cluster.steps_per_look = 0
    study = submitted(studies, limits={"trials": 20, "concurrent": 2, "hours": 2.0})
    tick(dispatcher, 6)
    began = study.created_at
    planner = dispatcher.studies.planners[StudyKind.SWEEP]
    monkeypatch.setattr(planner, "_now", lambda: began.replace(year=began.year + 1))
    dispatcher.clock.advance(2 * 3600 + 1)
    finish(dispatcher, studies, study.id)
    ended = studies.get(study.id)
    assert "its 2 hours are over" in ended.message
    assert {trial.outcome for trial in rows(studies, study.id)} == {"CANCELLED"}


def test_limits_change_while_it_goes_on_and_after_its_end(dispatcher, studies):
    study = submitted(studies)
    tick(dispatcher, 2)
    with pytest.raises(InvalidField, match="it has begun 2 trials already"):
        studies.extend(study.id, {"trials": 1}, by="ada")
    finish(dispatcher, studies, study.id)
    before = told(studies.database, study.id)[0]
    assert studies.extend(study.id, {"trials": 9}, by="ada").state == StudyState.ACTIVE
    finish(dispatcher, studies, study.id)
    assert told(studies.database, study.id)[0][:6] == before
    assert len(rows(studies, study.id)) == 9
    (changed,) = (one.payload for one in studies.decisions(study.id) if one.kind == "limits")
    assert changed["limits"]["trials"] == 9


def test_it_cannot_be_extended_while_it_stops(studies, database):
    study = submitted(studies)
    with database.writing() as session:
        session.execute(update(Study).where(Study.id == study.id).values(state="STOPPING"))
    with pytest.raises(IllegalStudyAction):
        studies.extend(study.id, {"trials": 30}, by="ada")


def test_a_proposal_whose_spec_is_refused_is_a_failed_trial_with_a_name(dispatcher, studies, database):
    """What the corners let through: here by hands that changed the stored base."""
    study = submitted(studies, limits={"trials": 4, "concurrent": 2, "failed": 3})
    with database.writing() as session:
        session.execute(text("UPDATE studies SET specs = :specs"), {"specs": '{"base": {"train": {"seed": 1}}}'})
    finish(dispatcher, studies, study.id, StudyState.FAILED)
    found = studies.trials(study.id)
    assert {row.trial.outcome for row in found} == {"SPEC_INVALID"}
    assert {row.experiment for row in found} == {None}
    assert "/model" in found[0].trial.why
    assert "SPEC_INVALID" in studies.get(study.id).message


def test_a_sweep_that_this_version_cannot_read_ends(dispatcher, studies, database):
    study = submitted(studies)
    tick(dispatcher, 2)
    with database.writing() as session:
        session.execute(text("UPDATE studies SET spec = '{}'"))
    finish(dispatcher, studies, study.id, StudyState.FAILED)
    assert studies.get(study.id).reason == "SPEC_UNREADABLE"
