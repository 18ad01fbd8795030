"""What becomes of an experiment after its submission: changed, copied, deleted; alone and many at once."""

import pytest

from service.database.models.experiments import Deletion, IdempotencyKey, Label
from service.dispatcher.file_cleanup import FileCleanup, erase
from service.dispatcher.store import AttemptEnd
from service.domain.states import Move, Reason, State
from service.experiments.keys import KEY_LIFE
from tests.support.specs import spec, spec_dict
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder

PROBLEM = "application/problem+json"


def submit(http, **changes):
    answer = http.post("/v1/experiments", json=spec_dict(**changes))
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


@pytest.fixture
def ended(http, leader):
    """An experiment that has failed; its path."""
    path = submit(http, tags={"a": "b"})
    end(leader)
    return path


def end(leader):
    leader.claim(leader.queue()[0], 1)
    ((row, _),) = leader.live()
    leader.apply(row, Move(State.FAILED, Reason.USER_ERROR), AttemptEnd())


def test_priority_tags_and_description_may_change_and_nothing_else(http):
    path = submit(http, tags={"a": "b", "c": "d"}, description="why")
    changed = http.patch(path, json={"priority": 7, "tags": {"a": "z"}}).json()
    assert (changed["priority"], changed["tags"], changed["description"]) == (7, {"a": "z"}, "why")
    assert changed["spec"]["priority"] == 7, "the next attempt goes by the spec"
    assert http.get("/v1/experiments?tag=a:z").json()["items"][0]["id"] == changed["id"]
    assert http.get("/v1/experiments?tag=c").json()["items"] == []
    for body, pointer in (
        ({"name": "x"}, "/name"),
        ({"priority": 1001}, "/priority"),
        ({"priority": "1"}, "/priority"),
        ({"tags": {"a b": "c"}}, "/tags/a b"),
        ({"description": "x" * 4097}, "/description"),
    ):
        answer = http.patch(path, json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_change_may_say_of_which_version_it_is(http):
    path = submit(http)
    tag = http.get(path).headers["ETag"]
    assert http.patch(path, json={"priority": 1}, headers={"If-Match": tag}).status_code == 200
    late = http.patch(path, json={"priority": 2}, headers={"If-Match": tag})
    assert (late.status_code, late.headers["content-type"]) == (412, PROBLEM)
    for other in ('"x"', "W/" + tag, '"99999999999"', "²"):
        header = {"If-Match": other.encode("latin-1")}
        assert http.patch(path, json={"priority": 2}, headers=header).status_code == 412, other
    assert http.patch(path, json={"priority": 3}, headers={"If-Match": "*"}).json()["priority"] == 3


def test_a_change_that_changes_nothing_leaves_the_version(http):
    path = submit(http, priority=4)
    assert http.patch(path, json={"priority": 4}).headers["ETag"] == http.get(path).headers["ETag"]
    assert http.patch(path, json={}).json()["priority"] == 4


def test_a_higher_priority_overtakes_in_the_queue(http, leader):
    first, second = submit(http, name="first"), submit(http, name="second")
    http.patch(second, json={"priority": 1})
    assert [row.name for row in leader.queue()] == ["second", "first"]
    assert first != second


def test_what_has_ended_is_deleted_with_its_files_and_what_has_not_is_refused(http, leader, settings, ended):
    running = submit(http, name="running")
    refused = http.delete(running)
    assert (refused.status_code, refused.json()["legal"]) == (409, ["cancel", "pause"])
    folder = ExperimentFolder(settings.storage_root, ended.rsplit("/", 1)[-1])
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / "weights").write_text("x")
    assert http.delete(ended).status_code == 204
    for path in ("", "/events", "/logs", "/metrics"):
        assert http.get(ended + path).status_code == 404
    assert http.delete(ended).status_code == 404
    with leader.database.reading() as session:
        assert session.get(Deletion, folder.experiment_id) is not None, "noted until its files are gone"
    file_cleanup = FileCleanup(leader, storage=settings.storage_root, clock=lambda: 1e9)
    file_cleanup.tick({folder.experiment_id})
    assert file_cleanup.under_way is None, "its gang may still write"
    file_cleanup.not_before = 0
    wait_until(lambda: file_cleanup.tick(()) or leader.deletions() == [], "the files to go")  # type: ignore[func-returns-value]
    assert not folder.path.exists()
    file_cleanup.close()
    with leader.database.reading() as session:
        assert session.query(Label).filter_by(experiment_id=folder.experiment_id).count() == 0


def test_files_that_cannot_be_deleted_are_tried_again(leader, store, settings, monkeypatch):
    row = store.submit(spec())[0]
    end(leader)
    store.delete(row.id, by="test")
    now = [1e9]
    file_cleanup = FileCleanup(leader, storage=settings.storage_root, clock=lambda: now[0])
    path = ExperimentFolder(settings.storage_root, row.id).path
    path.parent.mkdir(parents=True)
    path.write_text("a file where a folder should be: rmtree refuses it")

    def tried_once():
        file_cleanup.tick(())
        return file_cleanup.under_way is None and file_cleanup.not_before > now[0] + 1

    wait_until(tried_once, "a first try")
    assert leader.deletions() == [row.id]
    path.unlink()
    now[0] += 100
    wait_until(lambda: file_cleanup.tick(()) or leader.deletions() == [], "another try")  # type: ignore[func-returns-value]
    file_cleanup.close()


def test_an_experiment_without_files_is_erased_too(tmp_path):
    erase(ExperimentFolder(tmp_path, "abc"))


def test_a_deletion_may_say_of_which_version_it_is(http, ended):
    assert http.delete(ended, headers={"If-Match": '"1"'}).status_code == 412
    assert http.delete(ended, headers={"If-Match": http.get(ended).headers["ETag"]}).status_code == 204


def test_a_copy_is_a_new_experiment_with_changes(http, ended):
    original = http.get(ended).json()
    overrides = {"name": "copy", "train.epochs": 3, "model": {"attention": {"type": "se"}}}
    answer = http.post(f"{ended}/clone", json=overrides)
    assert answer.status_code == 201, answer.text
    copy = answer.json()
    assert answer.headers["Location"] == f"/v1/experiments/{copy['id']}"
    assert (copy["state"], copy["cloned_from"], copy["name"]) == ("QUEUED", original["id"], "copy")
    assert copy["spec"]["train"] == original["spec"]["train"] | {"epochs": 3}
    assert copy["spec"]["model"]["attention"] == {"type": "se", "reduction": 16}
    assert copy["tags"] == {"a": "b"}
    same = http.post(f"{ended}/clone").json()
    assert same["spec"] == original["spec"]


@pytest.mark.parametrize(
    ("overrides", "pointer"),
    [
        ({"train": {"epochs": 0}}, "/train/epochs"),
        ({"colour": "red"}, "/colour"),
        ({"name.first": "x"}, "/name.first"),
        ({"model": None}, "/model"),
        ({"data.root": "/etc", "data.dataset": "cifar10"}, "/data/root"),
    ],
)
def test_a_copy_that_cannot_be_is_refused_at_its_place(http, overrides, pointer):
    answer = http.post(f"{submit(http)}/clone", json=overrides)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert len(http.get("/v1/experiments").json()["items"]) == 1


def test_a_copy_has_its_idempotency_key_too(http, ended):
    key = {"Idempotency-Key": "copy"}
    first, again = (http.post(f"{ended}/clone", json={"name": "c"}, headers=key).json()["id"] for _ in range(2))
    assert first == again
    assert http.post(f"{ended}/clone", json={"name": "d"}, headers=key).status_code == 422
    assert http.post("/v1/experiments", json=spec_dict(), headers=key).status_code == 422


def test_a_key_is_forgotten_after_a_day(http, store, database):
    key = {"Idempotency-Key": "daily"}
    first = http.post("/v1/experiments", json=spec_dict(), headers=key).json()["id"]
    with database.writing() as session:
        for row in session.query(IdempotencyKey):
            row.created_at -= KEY_LIFE
    other = http.post("/v1/experiments", json=spec_dict(name="other"), headers=key)
    assert other.status_code == 201
    assert other.json()["id"] != first
    with database.reading() as session:
        assert session.query(IdempotencyKey).count() == 1


def test_many_are_cancelled_by_a_filter_each_with_its_own_result(http, ended):
    for index in range(3):
        submit(http, name=f"n{index}", tags={"batch": "1"})
    which = {"filter": {"tag": ["batch:1"]}, "limit": 2}
    seen = http.post("/v1/bulk/cancel", json=which | {"dry_run": True}).json()
    assert [result["state"] for result in seen["results"]] == [None, None]
    assert seen["more"] is True
    done = http.post("/v1/bulk/cancel", json=which).json()
    assert [result["ok"] for result in done["results"]] == [True, True]
    assert [result["id"] for result in done["results"]] == [result["id"] for result in seen["results"]]
    ids = [*(result["id"] for result in done["results"]), ended.rsplit("/", 1)[-1], "nothere"]
    mixed = http.post("/v1/bulk/cancel", json={"ids": ids}).json()["results"]
    assert [result["ok"] for result in mixed] == [True, True, False, False]
    assert [result["problem"]["status"] for result in mixed[2:]] == [409, 404]
    assert mixed[2]["problem"]["legal"] == ["retry", "delete"]


def test_many_are_deleted_by_a_filter(http, leader, ended):
    waiting = submit(http)
    answer = http.post("/v1/bulk/delete", json={"filter": {"state": ["FAILED", "QUEUED"]}}).json()
    assert {result["ok"] for result in answer["results"]} == {True, False}
    assert http.get(ended).status_code == 404
    assert http.get(waiting).status_code == 200
    assert len(leader.deletions()) == 1


@pytest.mark.parametrize(
    "body", [{}, {"filter": {}}, {"ids": []}, {"ids": ["a"], "filter": {"q": "a"}}, {"ids": ["../a"]}]
)
def test_everything_is_never_meant_by_nothing(http, body):
    for action in ("cancel", "delete"):
        answer = http.post(f"/v1/bulk/{action}", json=body)
        assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM), answer.text


def test_events_and_attempts_come_in_pages(http, leader, ended):
    http.post(f"{ended}/retry")
    end(leader)
    for part, count in (("events", 6), ("attempts", 2)):
        seen, cursor = [], "0"
        while cursor is not None:
            page = http.get(f"{ended}/{part}?limit=1&cursor={cursor}").json()
            seen += page["items"]
            cursor = page["next_cursor"]
        assert seen == http.get(f"{ended}/{part}").json()["items"]
        assert len(seen) == count
