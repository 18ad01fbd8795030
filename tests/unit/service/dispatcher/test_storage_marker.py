"""Files count as removed only on the storage that is known, while it is mounted; and links lead nowhere."""

import logging
from shutil import rmtree

import pytest
from sqlalchemy import text

from service.dispatcher import file_cleanup
from service.dispatcher.dispatcher import Dispatcher
from service.dispatcher.file_cleanup import FileCleanup, erase, erase_checkpoints
from service.dispatcher.storage_marker import MARKER, make_marker, read_marker
from service.domain.pruning import PruneScope
from service.domain.states import State
from tests.support.dispatching import tick, until
from tests.support.specs import spec
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder


@pytest.fixture
def ended(dispatcher, store, settings):
    """An experiment that has ended and left files."""

    def ended() -> ExperimentFolder:
        row, _ = store.submit(spec())
        until(dispatcher, store, row.id, State.SUCCEEDED)
        wait_until(lambda: tick(dispatcher) or store.get(row.id).tracking_closed, "MLflow to be told")
        folder = ExperimentFolder(settings.storage_root, row.id)
        for path in (folder.checkpoints / "step-1" / "state.pt", folder.weights):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        return folder

    return ended


def asked(dispatcher, store, folder, scope):
    """Have files removed; gives what says whether that is still to be done."""
    files = dispatcher.file_cleanup.file_store
    if scope is None:
        store.delete(folder.experiment_id, by="test")
        return lambda: folder.experiment_id in dispatcher.store.deletions()
    store.prune(folder.experiment_id, scope, by="test")
    return lambda: folder.experiment_id in files.prunings()


def tried(dispatcher, clock, caplog, words):
    """The clean-up has said these words once more."""
    caplog.clear()
    clock.now += file_cleanup.RETRY_SECONDS + 1

    def done():
        tick(dispatcher)
        return words in caplog.text and dispatcher.file_cleanup.under_way is None

    wait_until(done, words)


SCOPES = [None, PruneScope.ALL, PruneScope.CHECKPOINTS]


@pytest.mark.parametrize("mount_point", ["missing", "empty", "another storage", "left by a worker"])
@pytest.mark.parametrize("scope", SCOPES)
def test_while_storage_is_not_mounted_nothing_counts_as_removed(
    ended, dispatcher, store, settings, clock, caplog, scope, mount_point
):
    folder = ended()
    away = settings.storage_root.with_name("away")
    settings.storage_root.rename(away)
    if mount_point != "missing":
        settings.storage_root.mkdir()
    if mount_point == "another storage":
        assert make_marker(settings.storage_root, may_be_empty=True) != read_marker(away)
    if mount_point == "left by a worker":
        (settings.storage_root / "experiments" / "abc").mkdir(parents=True)
    before = {path.name for path in settings.storage_root.rglob("*")}
    is_open = asked(dispatcher, store, folder, scope)
    with caplog.at_level(logging.WARNING):
        tried(dispatcher, clock, caplog, "is not mounted")
    assert is_open()
    assert {path.name for path in settings.storage_root.rglob("*")} == before, "nothing is written there either"
    if settings.storage_root.exists():
        rmtree(settings.storage_root)
    away.rename(settings.storage_root)
    assert folder.checkpoints.exists()
    clock.now += file_cleanup.RETRY_SECONDS + 1
    wait_until(lambda: tick(dispatcher) or not is_open(), "the removal, once it is mounted")
    assert not folder.checkpoints.exists()
    assert folder.weights.exists() == (scope is PruneScope.CHECKPOINTS)


def test_storage_that_goes_in_the_middle_of_a_removal_leaves_it_open(ended, dispatcher, store, settings, monkeypatch):
    folder = ended()
    away = settings.storage_root.with_name("away")

    def erase_and_lose(_folder):
        settings.storage_root.rename(away)

    monkeypatch.setattr(file_cleanup, "erase", erase_and_lose)
    is_open = asked(dispatcher, store, folder, None)
    wait_until(lambda: tick(dispatcher) or away.exists(), "the attempt")
    wait_until(lambda: tick(dispatcher) or dispatcher.file_cleanup.under_way is None, "its end")
    assert is_open()


def test_the_first_start_marks_storage_and_every_later_one_knows_it(dispatcher, database, cluster, settings, clock):
    wait_until(lambda: tick(dispatcher) or dispatcher.file_cleanup.marker, "the marker")
    marker = read_marker(settings.storage_root)
    assert marker == dispatcher.file_cleanup.marker == dispatcher.file_cleanup.file_store.storage_marker()
    dispatcher.leadership.release()
    later = Dispatcher(database, cluster, settings, clock=clock)
    wait_until(lambda: tick(later) or later.file_cleanup.marker, "the marker")
    assert later.file_cleanup.marker == marker
    assert read_marker(settings.storage_root) == marker


def test_a_marker_that_is_there_already_is_taken(dispatcher, settings):
    """Of a database that was made anew, or of another service on the same storage."""
    made = make_marker(settings.storage_root, may_be_empty=True)
    wait_until(lambda: tick(dispatcher) or dispatcher.file_cleanup.marker, "the marker")
    assert dispatcher.file_cleanup.marker == made == read_marker(settings.storage_root)


def test_a_service_of_before_marks_its_storage_once_that_is_seen_to_hold_experiments(
    ended, dispatcher, store, settings, clock, caplog
):
    """After an upgrade nobody knows yet what storage looks like."""
    folder = ended()
    (settings.storage_root / MARKER).unlink()
    with store.database.writing() as session:
        session.execute(text("DELETE FROM storage_markers"))
    away = settings.storage_root.with_name("away")
    settings.storage_root.rename(away)
    (settings.storage_root / "experiments").mkdir(parents=True)
    (settings.storage_root / "experiments" / ".abc.closed").touch()  # by a clean-up of before
    cleanup = FileCleanup(dispatcher.store, storage=settings.storage_root, clock=clock)
    store.delete(folder.experiment_id, by="test")
    with caplog.at_level(logging.WARNING):
        wait_until(lambda: cleanup.tick(()) or "holds no experiments" in caplog.text, "a warning")
        wait_until(lambda: cleanup.tick(()) or cleanup.marking is None, "its end")
    assert (cleanup.marker, read_marker(settings.storage_root)) == (None, None)
    rmtree(settings.storage_root)
    away.rename(settings.storage_root)
    clock.now += file_cleanup.RETRY_SECONDS + 1
    wait_until(lambda: cleanup.tick(()) or dispatcher.store.deletions() == [], "the removal")
    assert not folder.path.exists()
    cleanup.close()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["folder", "dangling"])
def test_of_a_folder_that_is_a_link_nothing_goes_that_it_points_to(
    ended, dispatcher, store, tmp_path, caplog, scope, kind
):
    folder = ended()
    moved = tmp_path / "moved"
    folder.path.rename(moved)
    folder.path.symlink_to(moved)
    if kind == "dangling":
        rmtree(moved)
    is_open = asked(dispatcher, store, folder, scope)
    with caplog.at_level(logging.WARNING):
        wait_until(lambda: tick(dispatcher) or not is_open(), "the removal")
    assert f"is a link to {moved}" in caplog.text
    assert folder.path.is_symlink() == (scope is PruneScope.CHECKPOINTS)
    if kind == "folder":
        assert (moved / "checkpoints/step-1/state.pt").read_bytes() == b"x"
        assert (moved / "export/model.safetensors").read_bytes() == b"x"


@pytest.mark.parametrize("remove", [erase, erase_checkpoints])
def test_of_links_within_a_folder_nothing_goes_that_they_point_to(tmp_path, remove):
    outside = tmp_path / "outside"
    (outside / "step-1").mkdir(parents=True)
    folder = ExperimentFolder(tmp_path / "storage", "abc")
    folder.path.mkdir(parents=True)
    folder.checkpoints.symlink_to(outside)
    remove(folder)
    assert (outside / "step-1").is_dir()
    assert not folder.checkpoints.is_symlink()
    folder.checkpoints.mkdir(parents=True)
    (folder.checkpoints / "step-2").symlink_to(outside)
    remove(folder)
    assert (outside / "step-1").is_dir()
    assert not folder.checkpoints.exists()


def test_a_link_that_an_earlier_try_has_renamed_is_removed(tmp_path):
    """An older clean-up gave the link its other name, and then could not remove it."""
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = ExperimentFolder(tmp_path / "storage", "abc")
    folder.path.parent.mkdir(parents=True)
    folder.path.with_name(".abc.deleted").symlink_to(outside)
    erase(folder)
    assert outside.is_dir()
    assert [path.name for path in folder.path.parent.iterdir()] == [".abc.closed"]
