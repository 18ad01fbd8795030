"""What users ask of studies, over rows that were made by hand: on both databases, without a dispatcher."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from sqlalchemy import event, func, select, update

from service.comparisons import actions
from service.comparisons.submission import base_spec, variant_specs
from service.database.models.experiments import Deletion, Experiment
from service.database.models.studies import Study, Trial
from service.domain.roles import LOCAL
from service.domain.states import Reason, State
from service.domain.studies import StudyKind, StudyState, seed_of
from service.domain.values import utc_now
from service.errors import IllegalAction, InvalidField, StudyNotFound
from service.experiments.insertion import insert_experiment
from service.experiments.store import forget_in
from service.studies.store import NewStudy, StudyStore
from tests.support.studies.compared import comparison_spec

RULE = {"pilot": 3, "most": 20, "stop": {"rule": "precision", "half_width": 0.02}}
TWO = {"plain": {"model.attention": "none"}, "cbam": {}}
Child = tuple[State, Reason | None]
GOOD, BAD, DIVERGED = (State.SUCCEEDED, None), (State.FAILED, Reason.DATA_ERROR), (State.FAILED, Reason.LOSS_NOT_FINITE)


@pytest.fixture
def studies(database) -> StudyStore:
    return StudyStore(database)


def submitted(studies: StudyStore, *, key: str | None = None, **changes: object) -> Study:
    spec = comparison_spec(**({"variants": TWO, "seeds": 3} | changes))
    new = NewStudy(
        kind=StudyKind.COMPARISON,
        name=spec.name,
        project="tests",
        description="",
        spec=spec.model_dump(mode="json"),
        specs=variant_specs(spec, base_spec(spec)),
        seed=7,
        seeds=spec.first_seeds,
    )
    study, _ = studies.submit(new, owner="local", key=key, body_hash=spec.model_dump_json(), quota_disk=None)
    return study


def begun(
    studies: StudyStore, children: Sequence[Child], *, state: StudyState = StudyState.ACTIVE, **changes: object
) -> Study:
    """A study with these experiments, block by block; those that have succeeded were read where the study has ended."""
    study = submitted(studies, **changes)
    spec = comparison_spec(**({"variants": TWO, "seeds": 3} | changes))
    specs = [*variant_specs(spec, base_spec(spec)).items()]
    with studies.database.writing() as session:
        for number, (reached, reason) in enumerate(children):
            variant, one = specs[number % len(specs)]
            block = number // len(specs)
            experiment = insert_experiment(session, one, "local", study_id=study.id)
            experiment.state, experiment.reason = reached, reason
            trial = Trial(study_id=study.id, number=number, experiment_id=experiment.id, variant=variant, block=block)
            trial.seed = seed_of(7, block)
            if reached is State.SUCCEEDED and state is not StudyState.ACTIVE:
                trial.observed_at, trial.correct, trial.images = utc_now(), 20, 40
                trial.observed = {"correct": "x" * 1000}
            session.add(trial)
        session.execute(update(Study).where(Study.id == study.id).values(state=state))
    return studies.get(study.id)


def ids_of(studies: StudyStore, study: Study) -> list[str]:
    return [row.trial.experiment_id for row in studies.trials(study.id)]


def test_a_stale_request_takes_no_seeds_away(studies):
    stale = submitted(studies)
    studies.add_seeds(stale.id, 20, by="ada")
    with pytest.raises(InvalidField, match="it has 20 seeds; give more"):
        actions.add_seeds(studies, stale, 4, caller=LOCAL, version=None)
    assert studies.get(stale.id).seeds == 20


def test_a_stale_request_adds_no_seeds_where_the_rule_chooses_them_again(studies):
    stale = begun(studies, [GOOD, BAD] * 3, state=StudyState.SUCCEEDED, seeds=RULE)
    studies.retry(stale.id, by="ada")
    with pytest.raises(InvalidField, match="its rule of precision chooses them"):
        actions.add_seeds(studies, stale, 9, caller=LOCAL, version=None)
    assert studies.get(stale.id).seeds == 3


@pytest.mark.parametrize(
    ("child", "seen"),
    [(GOOD, True), (DIVERGED, True), (BAD, False), ((State.RUNNING, None), False), ((State.CANCELLED, None), False)],
)
def test_whether_results_were_to_be_seen_is_kept_also_where_none_was_read(studies, child, seen):
    study = begun(studies, [child, (State.QUEUED, None)])
    assert studies.add_seeds(study.id, 5, by="ada").seeds_added is seen


def test_what_was_seen_of_an_experiment_that_is_deleted_was_seen(studies, store):
    study = begun(studies, [GOOD, BAD], state=StudyState.SUCCEEDED)
    for child in ids_of(studies, study):
        store.delete(child, by="ada")
    assert studies.add_seeds(study.id, 5, by="ada").seeds_added


@contextmanager
def counted(studies: StudyStore) -> Iterator[list[str]]:
    """The statements that delete experiments or end a transaction, as they come."""
    seen: list[str] = []
    engine = studies.database.engine

    def note(_connection, _cursor, statement, *_):
        if statement.startswith("DELETE FROM experiments"):
            seen.append("delete")

    def committed(_connection):
        if seen and seen[-1] != "commit":
            seen.append("commit")

    event.listen(engine, "before_cursor_execute", note)
    event.listen(engine, "commit", committed)
    yield seen
    event.remove(engine, "before_cursor_execute", note)
    event.remove(engine, "commit", committed)


def test_its_experiments_are_deleted_some_in_each_transaction(studies, monkeypatch):
    monkeypatch.setattr("service.studies.store.DELETED_AT_ONCE", 2)
    study = begun(studies, [GOOD, BAD, GOOD, DIVERGED, GOOD], state=StudyState.SUCCEEDED)
    with counted(studies) as seen:
        studies.delete(study.id, by="ada", experiments=True)
    assert seen == ["delete", "commit"] * 3
    with studies.database.reading() as session:
        for table, count in ((Experiment, 0), (Trial, 0), (Study, 0), (Deletion, 5)):
            assert session.scalar(select(func.count()).select_from(table)) == count
        assert {note.by for note in session.scalars(select(Deletion))} == {"ada"}


def test_a_deletion_that_was_cut_off_goes_on(studies, monkeypatch):
    monkeypatch.setattr("service.studies.store.DELETED_AT_ONCE", 2)
    study = begun(studies, [GOOD, BAD] * 3, state=StudyState.SUCCEEDED)
    forget = forget_in
    left = iter([forget])
    monkeypatch.setattr("service.studies.store.forget_in", lambda *words, **more: next(left)(*words, **more))
    with pytest.raises(StopIteration):  # in the second transaction
        studies.delete(study.id, by="ada", experiments=True)
    assert studies.counts([study.id])[study.id][None] == 2
    monkeypatch.setattr("service.studies.store.forget_in", forget)
    studies.delete(study.id, by="ada", experiments=True)
    with pytest.raises(StudyNotFound):
        studies.get(study.id)


def test_an_experiment_that_goes_on_is_named_and_nothing_is_deleted(studies, monkeypatch):
    monkeypatch.setattr("service.studies.store.DELETED_AT_ONCE", 2)
    study = begun(studies, [GOOD] * 5 + [(State.RUNNING, None)], state=StudyState.SUCCEEDED)
    last = ids_of(studies, study)[-1]
    with pytest.raises(IllegalAction, match=f"{last}: cannot delete an experiment that is RUNNING; it allows cancel"):
        studies.delete(study.id, by="ada", experiments=True)
    assert len([row for row in studies.trials(study.id) if row.experiment is not None]) == 6
