"""Sweeps in the dispatcher's tick, over a real database and a fake cluster whose runs report what their spec says."""

import pytest
from sqlalchemy import func, select, text, update

from service.cluster.base import GangKey
from service.database.models.experiments import Experiment
from service.database.models.studies import Study
from service.database.models.webhooks import Webhook, WebhookDelivery
from service.domain.roles import LOCAL
from service.domain.states import TERMINAL, State
from service.domain.studies import StudyKind, StudyState
from service.domain.values import utc_now
from service.errors import IllegalStudyAction, InvalidField, NothingToRetry
from service.experiments.actions import act
from tests.support.dispatching import tick
from tests.support.studies.running_sweeps import finish, rows, told
from tests.support.studies.sweeping import GRID, report, submitted, value_of


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


def test_a_webhook_is_told_of_its_end(dispatcher, studies, database):
    with database.writing() as session:
        told_to = {"owner": "local", "url": "https://example.org", "secret": "", "states": [], "enabled": True}
        session.add(Webhook(id="all", created_at=utc_now(), **told_to))
    study = submitted(studies, limits={"trials": 1})
    finish(dispatcher, studies, study.id)
    with database.reading() as session:
        (sent,) = session.scalars(select(WebhookDelivery).where(WebhookDelivery.type.startswith("sweep")))
    assert (sent.type, sent.payload["data"]["path"]) == ("sweep.ended", f"/v1/sweeps/{study.id}")


def test_an_experiment_that_is_retried_alone_counts_again(dispatcher, studies, store, cluster):
    cluster.steps_per_look = 0
    study = submitted(studies, limits={"trials": 3, "concurrent": 1})
    tick(dispatcher, 4)
    first = rows(studies, study.id)[0].experiment_id
    cluster.fail(GangKey(first, 1), "DATA_ERROR")
    cluster.steps_per_look = 5
    finish(dispatcher, studies, study.id)
    assert [trial.outcome for trial in rows(studies, study.id)] == ["DATA_ERROR", "OK", "OK"]
    act(store, first, "retry", caller=LOCAL)
    assert studies.get(study.id).state == StudyState.ACTIVE
    finish(dispatcher, studies, study.id)
    assert [trial.outcome for trial in rows(studies, study.id)] == ["OK"] * 3
