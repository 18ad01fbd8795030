"""What users ask of studies, over rows that were made by hand: on both databases, without a dispatcher."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import delete, event, func, select, update

from cbam_core.spec import ExperimentSpec
from service.comparisons import actions
from service.database.lease import Leadership
from service.database.models.experiments import Deletion, Experiment, IdempotencyKey
from service.database.models.studies import Study, Trial
from service.domain.pruning import PruneScope
from service.domain.roles import LOCAL
from service.domain.states import State
from service.domain.studies import StudyKind, StudyState
from service.errors import IdempotencyConflict, IllegalAction, IllegalStudyAction, InvalidField, StudyNotFound
from service.experiments.insertion import insert_experiment
from service.experiments.store import forget_in
from service.studies.rows import Reading, StudyRows
from service.studies.store import StudyStore
from tests.support.specs import spec_dict
from tests.support.studies.rows import BAD, DIVERGED, GOOD, begun, submitted

RULE = {"pilot": 3, "most": 20, "stop": {"rule": "precision", "half_width": 0.02}}


@pytest.fixture
def studies(database) -> StudyStore:
    return StudyStore(database)


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
    monkeypatch.setattr("service.studies.children.DELETED_AT_ONCE", 2)
    study = begun(studies, [GOOD, BAD, GOOD, DIVERGED, GOOD], state=StudyState.SUCCEEDED)
    with counted(studies) as seen:
        studies.delete(study.id, by="ada", experiments=True)
    assert seen == ["delete", "commit"] * 3
    with studies.database.reading() as session:
        for table, count in ((Experiment, 0), (Trial, 0), (Study, 0), (Deletion, 5)):
            assert session.scalar(select(func.count()).select_from(table)) == count
        assert {note.by for note in session.scalars(select(Deletion))} == {"ada"}


def test_a_deletion_that_was_cut_off_goes_on(studies, monkeypatch):
    monkeypatch.setattr("service.studies.children.DELETED_AT_ONCE", 2)
    study = begun(studies, [GOOD, BAD] * 3, state=StudyState.SUCCEEDED)
    left = iter([forget_in])

    def die_in_the_second(*words, **more):
        next(left)(*words, **more)

    with monkeypatch.context() as patch:
        patch.setattr("service.studies.children.forget_in", die_in_the_second)
        with pytest.raises(StopIteration):
            studies.delete(study.id, by="ada", experiments=True)
    assert studies.counts([study.id])[study.id][None] == 2
    studies.delete(study.id, by="ada", experiments=True)
    with pytest.raises(StudyNotFound):
        studies.get(study.id)


def test_an_experiment_that_goes_on_is_named_and_nothing_is_deleted(studies, monkeypatch):
    monkeypatch.setattr("service.studies.children.DELETED_AT_ONCE", 2)
    study = begun(studies, [GOOD] * 5 + [(State.RUNNING, None)], state=StudyState.SUCCEEDED)
    last = ids_of(studies, study)[-1]
    with pytest.raises(IllegalAction, match=f"{last}: cannot delete an experiment that is RUNNING; it allows cancel"):
        studies.delete(study.id, by="ada", experiments=True)
    assert len([row for row in studies.trials(study.id) if row.experiment is not None]) == 6


def test_a_list_of_runs_reads_neither_specs_nor_images(studies):
    """With them 3,800 runs took 600 MB."""
    study = begun(studies, [GOOD, BAD, GOOD], state=StudyState.SUCCEEDED)
    statements: list[str] = []
    event.listen(studies.database.engine, "before_cursor_execute", lambda *words: statements.append(words[2]))
    listed = studies.trial_list(study.id, first=1, limit=5)
    shown, _ = studies.page(study.kind)
    told = "\n".join(statements)
    assert [(one.number, one.state, one.correct) for one in listed] == [
        (1, State.FAILED, None),
        (2, State.SUCCEEDED, 20),
    ]
    assert "trials.observed" not in told
    assert "experiments.spec" not in told
    assert "studies.specs" not in told
    assert [one.id for one in shown] == [study.id]


@contextmanager
def meanwhile(job: Callable[[], object]) -> Iterator[Future[object]]:
    """`job` in a thread, which has time enough to come to a lock; its result or error once the block is left."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(job)
        wait([future], timeout=0.5)
        yield future


def test_a_key_that_an_experiment_uses_first_is_a_conflict(studies, database):
    """The experiment is stored between the look at the key and the end of the submission."""
    with ExitStack() as late:
        with database.writing() as session:
            row = insert_experiment(session, ExperimentSpec.model_validate(spec_dict()), "local")
            session.flush()
            used = {"owner": "local", "key": "k", "body_hash": "other"}
            session.add(IdempotencyKey(**used, experiment_id=row.id, created_at=row.created_at))
            session.flush()
            future = late.enter_context(meanwhile(lambda: submitted(studies, key="k")))
            assert not future.done(), "it waits for the other transaction"
        with pytest.raises(IdempotencyConflict):
            future.result(timeout=20)
    assert studies.page(StudyKind.COMPARISON)[0] == []


def test_a_reading_and_a_deletion_lock_the_study_before_its_trials(studies, database):
    """PostgreSQL ends one of two transactions that take the same locks in different orders."""
    study = begun(studies, [GOOD])
    leadership = Leadership(database, holder="test", seconds=600)
    leadership.renew()
    rows = StudyRows(database, leadership)
    (unread,) = rows.unobserved()
    with ExitStack() as late:
        with database.writing() as session:  # as a deletion: the study, and then by the cascade its trials
            session.get(Study, study.id, with_for_update=True)
            reading = Reading(correct=20, images=40, classes=10)
            future = late.enter_context(meanwhile(lambda: rows.note_reading(unread, reading)))
            session.execute(delete(Study).where(Study.id == study.id))
        future.result(timeout=20)
    with pytest.raises(StudyNotFound):
        studies.get(study.id)


def pruned(studies: StudyStore, experiment_ids: list[str], what: PruneScope = PruneScope.CHECKPOINTS) -> None:
    with studies.database.writing() as session:
        session.execute(update(Experiment).where(Experiment.id.in_(experiment_ids)).values(pruned=what))


def test_a_pruned_experiment_is_skipped_and_the_others_are_retried(studies):
    study = begun(studies, [BAD, GOOD, DIVERGED, BAD, (State.CANCELLED, None)], state=StudyState.SUCCEEDED)
    first = ids_of(studies, study)[0]
    pruned(studies, [first])
    assert studies.retry(study.id, by="ada").state == StudyState.ACTIVE
    states = [one.state for one in studies.trial_list(study.id)]
    assert states == [State.FAILED, State.SUCCEEDED, State.FAILED, State.QUEUED, State.QUEUED]
    asked = studies.decisions(study.id)[-1]
    assert (asked.kind, asked.by) == ("asked", "ada")
    told = {"action": "retry", "queued": [3, 4], "pruned": [f"plain, seed 1 ({first})"]}
    assert asked.payload == told


@pytest.mark.parametrize("state", [StudyState.SUCCEEDED, StudyState.FAILED, StudyState.CANCELLED])
def test_a_retry_of_pruned_experiments_alone_is_refused_with_their_names(studies, state):
    study = begun(studies, [BAD, GOOD, BAD, GOOD], state=state)
    first, _, third, _ = ids_of(studies, study)
    pruned(studies, [first, third])
    with pytest.raises(IllegalStudyAction, match=rf"pruned: plain, seed 1 \({first}\); plain, seed 2 \({third}\)"):
        studies.retry(study.id, by="ada")
    assert studies.get(study.id).version == study.version


def test_a_retry_where_nothing_failed_is_refused(studies):
    """It ended again each time, and webhooks were told."""
    study = begun(studies, [GOOD, DIVERGED], state=StudyState.SUCCEEDED)
    with pytest.raises(IllegalStudyAction, match="cannot retry a study that is SUCCEEDED: nothing failed") as refusal:
        studies.retry(study.id, by="ada")
    assert refusal.value.legal == ["add-seeds", "delete"]
    assert (studies.get(study.id).state, len(studies.decisions(study.id))) == (StudyState.SUCCEEDED, 1)


def test_a_cancelled_study_goes_on_where_nothing_of_it_failed(studies):
    study = begun(studies, [GOOD, GOOD], state=StudyState.CANCELLED)
    assert studies.retry(study.id, by="ada").state == StudyState.ACTIVE


def test_a_retry_has_what_told_no_number_read_again(studies, database):
    study = begun(studies, [GOOD, GOOD, GOOD], state=StudyState.SUCCEEDED)
    with database.writing() as session:
        session.execute(update(Trial).where(Trial.number > 0).values(correct=None))
    pruned(studies, ids_of(studies, study)[2:], PruneScope.ALL)  # of which nothing is left to read
    assert studies.retry(study.id, by="ada").state == StudyState.ACTIVE
    assert studies.decisions(study.id)[-1].payload == {"action": "retry", "read_again": [1]}
    assert [row.trial.observed_at is None for row in studies.trials(study.id)] == [False, True, False]
