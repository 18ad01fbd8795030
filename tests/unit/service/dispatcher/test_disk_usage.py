"""What owners keep on disk is measured beside the tick, and limited: from a file in a folder to the refusal."""

from shutil import rmtree

import pytest

from service.auth.tokens import Tokens
from service.database.disk_usage import disk_usage
from service.dispatcher.disk_usage import QUOTA_SECONDS, DiskMeter, size_of
from service.dispatcher.file_store import LIVE_SECONDS, FileStore, Measured
from service.domain.states import State
from service.domain.values import utc_now
from service.errors import DiskQuotaExceeded
from service.schemas.auth import TokenRequest
from tests.support.dispatching import tick, until
from tests.support.specs import spec, spec_dict
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder

QUOTA = 10_000
LONG = {"train": {"epochs": 1000, "global_batch_size": 128}}


def put(settings, experiment_id: str, size: int, name: str = "state.pt") -> ExperimentFolder:
    """A file of the experiment's among its checkpoints."""
    folder = ExperimentFolder(settings.storage_root, experiment_id)
    path = folder.checkpoints / "step-1" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return folder


def measured(dispatcher, store, experiment_id: str, least: int) -> None:
    def done():
        tick(dispatcher)
        row = store.get(experiment_id)
        return row.disk_measured_at is not None and row.checkpoint_bytes == least

    wait_until(done, "the measuring")


def used(store, owner: str = "local") -> int:
    with store.database.reading() as session:
        return disk_usage(session, [owner])[owner]


@pytest.fixture
def full(dispatcher, store, settings):
    """An ended experiment of an owner whose files come to the quota."""

    def full(owner: str = "local") -> str:
        row, _ = store.submit(spec(**LONG), owner=owner)
        until(dispatcher, store, row.id, State.RUNNING)
        put(settings, row.id, QUOTA)
        store.set_desired(row.id, lambda _: "cancel")
        until(dispatcher, store, row.id, State.CANCELLED)
        measured(dispatcher, store, row.id, QUOTA)
        return row.id

    return full


def test_what_runs_is_measured_now_and_then_and_what_ends_once_more(dispatcher, store, settings, clock, monkeypatch):
    row, _ = store.submit(spec(**LONG))
    assert store.get(row.id).disk_measured_at is not None, "it has no files"
    until(dispatcher, store, row.id, State.RUNNING)
    monkeypatch.setattr("service.dispatcher.file_store.LIVE_SECONDS", 0.0)
    put(settings, row.id, 500)
    measured(dispatcher, store, row.id, 500)
    monkeypatch.setattr("service.dispatcher.file_store.LIVE_SECONDS", LIVE_SECONDS)
    put(settings, row.id, 700, "more.pt")
    version = store.get(row.id).version
    tick(dispatcher, 8)
    assert (store.get(row.id).checkpoint_bytes, store.get(row.id).version) == (500, version), "a minute is not over"
    store.set_desired(row.id, lambda _: "cancel")
    until(dispatcher, store, row.id, State.CANCELLED)
    measured(dispatcher, store, row.id, 1200)
    assert store.get(row.id).disk_bytes == size_of(ExperimentFolder(settings.storage_root, row.id).path) > 1200


@pytest.mark.parametrize("settings", [{"quota_disk": QUOTA}], indirect=True)
def test_an_owner_with_too_many_files_can_submit_nothing_new(http, full, store):
    kept = http.post("/v1/experiments", json=spec_dict(), headers={"Idempotency-Key": "k"}).json()["id"]
    experiment_id = full()
    for path, body in (("", spec_dict(name="other")), (f"/{kept}/clone", {})):
        refused = http.post(f"/v1/experiments{path}", json=body)
        assert (refused.status_code, refused.headers["content-type"]) == (409, "application/problem+json")
        assert "local keeps 10." in refused.json()["detail"]
        assert "10.0KB are allowed; delete experiments, or prune them (`cbam prune" in refused.json()["detail"]
    again = http.post("/v1/experiments", json=spec_dict(), headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.json()["id"]) == (201, kept), "it was taken before"
    me = http.get("/v1/whoami").json()
    assert (me["disk_bytes"], me["disk_quota_bytes"]) == (used(store), QUOTA)
    assert http.post(f"/v1/experiments/{experiment_id}/retry").status_code == 202, "its files are there already"


@pytest.mark.parametrize("settings", [{"quota_disk": QUOTA}], indirect=True)
def test_a_pruning_makes_room_and_a_deletion_once_its_files_are_gone(http, full, dispatcher, store):
    first = full()
    store.prune(first, "checkpoints", by="test")
    wait_until(lambda: tick(dispatcher) or used(store) < QUOTA, "the pruning")  # type: ignore[func-returns-value]
    second = full()
    with pytest.raises(DiskQuotaExceeded):
        store.submit(spec(), quota_disk=QUOTA)
    store.submit(spec(), owner="bob", quota_disk=QUOTA)
    http.delete(f"/v1/experiments/{second}")
    assert used(store) > QUOTA
    assert http.post("/v1/experiments", json=spec_dict()).status_code == 409
    wait_until(lambda: tick(dispatcher) or used(store) < QUOTA, "the deletion")  # type: ignore[func-returns-value]
    assert http.post("/v1/experiments", json=spec_dict()).status_code == 201


@pytest.mark.parametrize("settings", [{"quota_disk": QUOTA}], indirect=True)
def test_what_waits_is_held_back_until_there_is_room_and_what_has_begun_goes_on(
    full, dispatcher, store, cluster, clock
):
    begun = full()
    waits, other = store.submit(spec())[0], store.submit(spec(), owner="bob")[0]
    store.requeue(begun)
    clock.advance(QUOTA_SECONDS)
    until(dispatcher, store, other.id, State.SUCCEEDED)
    assert {key.experiment_id for key in cluster.starts} == {begun, other.id}
    assert store.get(begun).attempt == 2
    held = store.get(waits.id)
    assert (held.state, held.reason) == (State.QUEUED, None)
    assert "waits for room: your files come to 10." in held.message
    store.set_desired(begun, lambda _: "cancel")
    until(dispatcher, store, begun, State.CANCELLED)
    store.prune(begun, "checkpoints", by="test")
    until(dispatcher, store, waits.id, State.SUCCEEDED, most=200)


def test_without_a_quota_nothing_is_held_back(http, full, dispatcher, store):
    full()
    row, _ = store.submit(spec())
    assert http.post("/v1/experiments", json=spec_dict()).status_code == 201
    until(dispatcher, store, row.id, State.SUCCEEDED)


def test_tokens_of_one_name_share_a_quota(http, full, store):
    _, secret = Tokens(store.database).create(TokenRequest(name="ada"), by="test")
    full("ada")
    me = http.get("/v1/whoami", headers={"Authorization": f"Bearer {secret}"}).json()
    assert me["disk_bytes"] == used(store, "ada") > used(store) == 0


def test_storage_that_is_not_mounted_is_not_taken_for_empty(full, dispatcher, store, settings):
    experiment_id = full()
    away = settings.storage_root.with_name("away")
    with store.database.writing() as session:
        session.get_one(type(store.get(experiment_id)), experiment_id).disk_measured_at = None
    settings.storage_root.rename(away)
    tick(dispatcher, 8)
    assert (store.get(experiment_id).disk_measured_at, used(store) >= QUOTA) == (None, True)
    (settings.storage_root / "experiments").mkdir(parents=True)  # as somebody left it in the mount point
    tick(dispatcher, 8)
    assert (store.get(experiment_id).disk_measured_at, used(store) >= QUOTA) == (None, True)
    rmtree(settings.storage_root)
    away.rename(settings.storage_root)
    measured(dispatcher, store, experiment_id, QUOTA)


def test_one_folder_that_cannot_be_read_holds_up_no_other(full, dispatcher, store, monkeypatch):
    first, second = full(), full()
    meter = DiskMeter(dispatcher.disk_meter.store, storage=dispatcher.settings.storage_root, clock=lambda: 1e9)
    with store.database.writing() as session:
        for name in (first, second):
            session.get_one(type(store.get(name)), name).disk_measured_at = None

    def refuses(path):
        if first in str(path):
            raise PermissionError(path)
        return size_of(path)

    monkeypatch.setattr("service.dispatcher.disk_usage.size_of", refuses)
    found = meter._measure_all(meter.store.unmeasured(), meter.store.storage_marker())
    assert [one.of.id for one in found] == [second]
    meter.close()


def test_a_size_of_what_has_moved_on_meanwhile_is_dropped(full, dispatcher, store):
    experiment_id = full()
    files: FileStore = dispatcher.disk_meter.store
    with store.database.writing() as session:
        session.get_one(type(store.get(experiment_id)), experiment_id).disk_measured_at = None
    (read,) = files.unmeasured()
    store.prune(experiment_id, "checkpoints", by="test")
    assert files.unmeasured() == [], "it is measured once the pruning is over"
    files.close_pruning(experiment_id, "checkpoints")
    files.note_sizes([Measured(read, QUOTA, QUOTA, utc_now())])
    assert store.get(experiment_id).disk_measured_at is None
    (fresh,) = files.unmeasured()
    files.note_sizes([Measured(fresh, 5, 0, utc_now())])
    assert store.get(experiment_id).disk_bytes == 5


def test_links_are_not_followed_and_what_goes_counts_as_gone(tmp_path):
    (tmp_path / "outside").write_bytes(b"x" * 1000)
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep" / "file").write_bytes(b"x" * 10)
    (inside / "link").symlink_to(tmp_path)
    assert size_of(inside) < 100
    assert size_of(tmp_path / "nowhere") == 0
