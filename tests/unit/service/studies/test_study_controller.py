"""Studies in the dispatcher's tick, over a real database and a fake cluster whose runs leave real predictions."""

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from service.cluster.base import GangKey
from service.database.models.studies import Decision, Trial
from service.database.models.webhooks import Webhook, WebhookDelivery
from service.dispatcher.dispatcher import Dispatcher
from service.domain.roles import LOCAL
from service.domain.states import State
from service.domain.studies import StudyKind, StudyState, seed_of
from service.domain.values import utc_now
from service.errors import (
    ExperimentNotFound,
    IllegalStudyAction,
    StudyNotFound,
    VersionConflict,
)
from service.experiments.actions import act
from service.studies.store import StudyStore
from tests.support.dispatching import tick
from tests.support.predictions import CLASSES, IMAGES
from tests.support.studies.killing import live_and_die
from tests.support.studies.running import comparison, submitted, until


def reached(studies: StudyStore, study_id: str) -> dict[tuple[str, int], tuple[int | None, int | None]]:
    rows = [row.trial for row in studies.trials(study_id)]
    return {(trial.variant, trial.block): (trial.correct, trial.images) for trial in rows}


def test_a_comparison_trains_every_variant_with_every_seed_and_is_decided(dispatcher, studies):
    study = submitted(studies)
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    rows = studies.trials(study.id)
    assert [row.trial.number for row in rows] == list(range(6))
    assert [row.trial.block for row in rows] == [0, 0, 1, 1, 2, 2]
    for row in rows:
        assert row.experiment.study_id == study.id
        assert row.experiment.state == State.SUCCEEDED
        assert row.experiment.name == f"does cbam help-{row.trial.variant}-{row.trial.block}"
        assert row.experiment.tags == {"comparison": "does cbam help", "variant": row.trial.variant}
        assert row.experiment.spec["train"]["seed"] == row.trial.seed == seed_of(7, row.trial.block)
        assert row.experiment.spec["model"]["attention"]["type"] == {"plain": "none"}.get(row.trial.variant, "cbam")
    odd = [seed_of(7, block) % 2 for block in range(3)]
    assert reached(studies, study.id) == {
        (variant, block): (right + odd[block], IMAGES)
        for variant, right in (("plain", 20), ("cbam", 30))
        for block in range(3)
    }
    done = studies.get(study.id)
    assert (done.classes, done.ended_at is not None) == (CLASSES, True)
    assert [row.kind for row in studies.decisions(study.id)] == ["move", "trials", "trials", "trials", "move"]


def test_it_is_queued_in_the_order_of_its_blocks(dispatcher, studies, cluster):
    study = submitted(studies)
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    begun = {key.experiment_id: place for place, key in enumerate(cluster.starts)}
    assert [begun[row.trial.experiment_id] for row in studies.trials(study.id)] == list(range(6))


@pytest.mark.parametrize(
    "most_writes", [7, pytest.param(5, marks=pytest.mark.slow), pytest.param(11, marks=pytest.mark.slow)]
)
def test_a_killed_dispatcher_decides_as_if_it_had_never_been_killed(
    most_writes, database, cluster, settings, clock, studies
):
    """One after the other dies right behind its first, its second, … of `most_writes` transactions."""
    whole = submitted(studies, comparison(probe=True))
    first = Dispatcher(database, cluster, settings, clock=clock)
    until(first, studies, whole.id, StudyState.SUCCEEDED)
    first.leadership.release()
    killed = submitted(studies, comparison(probe=True))
    kills = 0
    while studies.get(killed.id).state != StudyState.SUCCEEDED:
        assert kills < 200, studies.trials(killed.id)
        mortal = Dispatcher(database, cluster, settings, clock=clock)
        live_and_die(mortal, clock, writes=1 + kills % most_writes, after_tick=_wait_for_readings)
        kills += 1
    assert kills > 5
    assert _told(database, killed.id) == _told(database, whole.id)


def _wait_for_readings(dispatcher: Dispatcher) -> None:
    if dispatcher.studies.under_way is not None:
        dispatcher.studies.under_way.exception()


def _told(database, study_id: str) -> tuple[list[tuple], list[tuple]]:
    """What was decided, and what came of it, without what differs from one study to the next: ids and times."""
    trial = select(Trial.number, Trial.block, Trial.variant, Trial.seed, Trial.correct, Trial.observed)
    decided = select(Decision.kind, Decision.from_state, Decision.to_state, Decision.payload)
    with database.reading() as session:
        trials = session.execute(trial.where(Trial.study_id == study_id).order_by(Trial.number))
        decisions = session.execute(decided.where(Decision.study_id == study_id).order_by(Decision.seq))
        return [tuple(row) for row in trials], [tuple(row) for row in decisions]


def test_a_cancel_frees_all_and_a_retry_goes_on(dispatcher, studies, cluster):
    cluster.steps_per_look = 0
    study = submitted(studies)
    tick(dispatcher, 4)
    studies.wish(study.id, "cancel", by="local")
    asked = studies.get(study.id)
    assert studies.wish(study.id, "cancel", by="local").version == asked.version, "to ask twice changes nothing"
    until(dispatcher, studies, study.id, StudyState.CANCELLED)
    assert {row.experiment.state for row in studies.trials(study.id)} == {State.CANCELLED}
    with pytest.raises(IllegalStudyAction, match="cannot pause a study that is CANCELLED; it allows retry and delete"):
        studies.wish(study.id, "pause", by="local")
    cluster.steps_per_look = 5
    studies.retry(study.id, by="local")
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert len(studies.trials(study.id)) == 6
    assert all(row.trial.correct for row in studies.trials(study.id))


def test_a_pause_keeps_what_was_reached_and_a_resume_goes_on(dispatcher, studies, cluster):
    cluster.steps_per_look = 1
    study = submitted(studies)
    tick(dispatcher, 4)
    studies.wish(study.id, "pause", by="local")
    until(dispatcher, studies, study.id, StudyState.PAUSED)
    assert {row.experiment.state for row in studies.trials(study.id)} == {State.PAUSED}
    tick(dispatcher, 10)
    assert studies.get(study.id).state == StudyState.PAUSED
    studies.wish(study.id, "resume", by="local")
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)


def test_a_deleted_a_cancelled_and_a_failed_child_end_no_study(dispatcher, studies, store, cluster):
    cluster.steps_per_look = 0
    study = submitted(studies)
    tick(dispatcher, 4)
    cluster.steps_per_look = 5
    first, second, *_ = (row.trial.experiment_id for row in studies.trials(study.id))
    act(store, first, "cancel", caller=LOCAL)
    cluster.fail(GangKey(second, 1), "DATA_ERROR")
    for _ in range(6):
        tick(dispatcher)
    store.delete(first, by="local")
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    rows = studies.trials(study.id)
    assert rows[0].experiment is None
    assert [row.trial.correct is None for row in rows] == [True, True, False, False, False, False]


def test_it_ends_where_everything_fails(dispatcher, studies, cluster):
    cluster.steps_per_look = 0
    study = submitted(studies, comparison(seeds=20))
    for _ in range(60):
        for key, gang in list(cluster.gangs.items()):
            if gang.outcome is None:
                cluster.fail(key, "DATA_ERROR", "no such folder")
        tick(dispatcher)
    ended = studies.get(study.id)
    assert (ended.state, ended.reason) == (StudyState.FAILED, "EXPERIMENTS_FAILED")
    assert "no such folder" in ended.message
    assert len(studies.trials(study.id)) <= 40


def test_seeds_are_added_and_that_is_kept(dispatcher, studies):
    study = submitted(studies)
    assert not studies.add_seeds(study.id, 4, by="local").seeds_added, "nothing had been seen"
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    more = studies.add_seeds(study.id, 5, by="local")
    assert (more.seeds_added, more.state) == (True, StudyState.ACTIVE)
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert len(studies.trials(study.id)) == 10


def test_precision_chooses_the_number_of_seeds_once(dispatcher, studies):
    rule = {"pilot": 3, "most": 6, "stop": {"rule": "precision", "half_width": 0.02}}
    study = submitted(studies, comparison(seeds=rule))
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    done = studies.get(study.id)
    assert done.seeds_chosen
    assert done.seeds == 6
    assert len(studies.trials(study.id)) == 12
    chosen = [row.payload for row in studies.decisions(study.id) if row.kind == "seeds"]
    assert [payload["seeds"] for payload in chosen] == [6]


def test_storage_that_does_not_answer_is_asked_again(dispatcher, studies, clock, monkeypatch):
    calls = []

    def unreadable(*_):
        calls.append(clock())
        raise PermissionError("away")

    study = submitted(studies, comparison(seeds=2))
    planner = dispatcher.studies.planners[StudyKind.COMPARISON]
    monkeypatch.setattr(planner, "read", unreadable)
    for _ in range(30):
        tick(dispatcher)
        if dispatcher.studies.under_way is not None:
            dispatcher.studies.under_way.exception()
    assert studies.get(study.id).state == StudyState.ACTIVE
    assert 4 <= len(calls) <= 12, "each of the four runs, and again after 5 s, not in every tick"
    monkeypatch.undo()
    clock.advance(60)
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)


def test_runs_without_predictions_count_by_what_they_reported(dispatcher, studies, cluster):
    cluster.export = None
    study = submitted(studies, comparison(seeds=2))
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert {row.trial.observed_at is not None for row in studies.trials(study.id)} == {True}
    assert {row.trial.correct for row in studies.trials(study.id)} == {None}, "it did not say of how many images"


def test_a_study_that_cannot_be_decided_holds_up_no_other(dispatcher, studies, database):
    broken, study = submitted(studies), submitted(studies)
    with database.writing() as session:
        session.execute(text("UPDATE studies SET specs = '{\"plain\": 5}' WHERE id = :id"), {"id": broken.id})
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert studies.get(broken.id).state == StudyState.ACTIVE


def test_the_database_refuses_a_move_that_is_not_in_the_table(studies, database):
    study = submitted(studies)
    with pytest.raises(IntegrityError), database.writing() as session:
        session.add(
            Decision(
                study_id=study.id,
                kind="move",
                from_state="PAUSED",
                to_state="FAILED",
                payload={},
                by="me",
                at=study.created_at,
            )
        )
    with pytest.raises(IntegrityError), database.writing() as session:
        session.execute(text("UPDATE studies SET state = 'DREAMING' WHERE id = :id"), {"id": study.id})


def test_it_is_deleted_with_its_trials_and_its_experiments_stay(dispatcher, studies, store, database):
    study = submitted(studies)
    with pytest.raises(IllegalStudyAction):
        studies.delete(study.id, by="local")
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    children = [row.trial.experiment_id for row in studies.trials(study.id)]
    with pytest.raises(VersionConflict):
        studies.delete(study.id, by="local", version=1)
    studies.delete(study.id, by="local")
    with pytest.raises(StudyNotFound):
        studies.get(study.id)
    with database.reading() as session:
        assert not session.scalars(select(Trial)).all()
        assert not session.scalars(select(Decision)).all()
    assert {store.get(child).study_id for child in children} == {study.id}
    tick(dispatcher)


def test_its_experiments_are_deleted_with_it_where_that_is_asked_for(dispatcher, studies, store):
    study = submitted(studies)
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    children = [row.trial.experiment_id for row in studies.trials(study.id)]
    studies.delete(study.id, by="ada", experiments=True)
    for child in children:
        with pytest.raises(ExperimentNotFound):
            store.get(child)
    assert set(dispatcher.store.deletions()) == set(children), "their files go too"


def test_webhooks_are_told_of_its_end(dispatcher, studies, database):
    with database.writing() as session:
        for name, states in (("all", []), ("failures", ["FAILED"])):
            session.add(_webhook(name, states))
    study = submitted(studies)
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    cancelled = submitted(studies)
    studies.wish(cancelled.id, "cancel", by="local")
    until(dispatcher, studies, cancelled.id, StudyState.CANCELLED)
    with database.reading() as session:
        told = session.scalars(select(WebhookDelivery).where(WebhookDelivery.type.startswith("comparison"))).all()
    assert {(one.webhook_id, one.type, one.payload["data"]["id"]) for one in told} == {
        ("all", "comparison.decided", study.id),
        ("all", "comparison.ended", cancelled.id),
    }
    (first, _) = sorted(told, key=lambda one: one.type)
    assert first.payload["data"]["path"] == f"/v1/comparisons/{study.id}"


def _webhook(name: str, states: list[str]) -> Webhook:
    return Webhook(
        id=name, owner="local", url="https://example.org", secret="", states=states, enabled=True, created_at=utc_now()
    )


def test_ended_studies_are_not_looked_at(dispatcher, studies):
    study = submitted(studies)
    until(dispatcher, studies, study.id, StudyState.SUCCEEDED)
    assert dispatcher.studies.rows.going_on() == {}
