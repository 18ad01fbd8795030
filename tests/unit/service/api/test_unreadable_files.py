"""A file that cannot be read is named, and hides none of the others; to ask for a digest takes room as to download."""

import errno
import os
import re

import pytest

from service.domain.roles import Caller, Role
from service.experiments.files import HASHED_AT_ONCE_BYTES
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder


@pytest.fixture
def folder(http, settings):
    experiment_id = http.post("/v1/experiments", json=spec_dict()).json()["id"]
    folder = ExperimentFolder(settings.storage_root, experiment_id)
    for name, content in {
        "spec.yaml": b"name: a\n",
        "attempts/1/rank-0.log": b"one\n",
        "attempts/1/rank-1.log": b"two\n",
        "export/model.safetensors": bytes(HASHED_AT_ONCE_BYTES + 1),
        "export/manifest.json": b"{}",
        "checkpoints/step-5/state.pt": b"state",
        "checkpoints/step-5/manifest.json": b'{"bytes": 5}',
    }.items():
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def files(folder):
    return f"/v1/experiments/{folder.experiment_id}/files"


@pytest.fixture
def refuse(monkeypatch):
    """Have the file system refuse to open what has this name; as root one may open everything."""
    refused = set()
    real = os.open

    def opening(path, *args, **more):
        if path in refused:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *args, **more)

    monkeypatch.setattr("service.experiments.files.os.open", opening)
    return refused.add


ALL = {
    *("attempts/1/rank-0.log", "attempts/1/rank-1.log", "checkpoints/step-5/manifest.json"),
    *("checkpoints/step-5/state.pt", "export/manifest.json", "export/model.safetensors", "spec.yaml"),
}


@pytest.mark.parametrize(
    ("refused", "named", "missing"),
    [
        ("spec.yaml", {"spec.yaml"}, {"spec.yaml"}),
        ("model.safetensors", {"export/model.safetensors"}, {"export/model.safetensors"}),  # too large for a digest
        ("attempts", {"attempts"}, {"attempts/1/rank-0.log", "attempts/1/rank-1.log"}),
        (
            "manifest.json",  # without it nobody knows whether the checkpoint is whole
            {"checkpoints/step-5/manifest.json", "export/manifest.json"},
            {"checkpoints/step-5/manifest.json", "checkpoints/step-5/state.pt", "export/manifest.json"},
        ),
    ],
)
def test_what_cannot_be_read_is_named_beside_the_others(http, files, refuse, refused, named, missing):
    assert {file["path"] for file in http.get(files).json()["items"]} == ALL
    refuse(refused)
    answer = http.get(files)
    assert answer.status_code == 200
    assert {file["path"] for file in answer.json()["items"]} == ALL - missing
    assert {file["path"] for file in answer.json()["unreadable"]} == named
    assert {file["detail"] for file in answer.json()["unreadable"]} == {
        "shared storage cannot be read: Permission denied"
    }


def test_pages_hold_both_by_path(http, files, refuse):
    refuse("rank-1.log")
    pages, cursor = [], ""
    while cursor is not None:
        page = http.get(files, params={"limit": 2, "cursor": cursor}).json()
        pages.append([sorted(file["path"] for file in page[kind]) for kind in ("items", "unreadable")])
        cursor = page["next_cursor"]
    assert pages[0] == [["attempts/1/rank-0.log"], ["attempts/1/rank-1.log"]]
    assert [len(items) + len(unreadable) for items, unreadable in pages] == [2, 2, 2, 1]


def test_beside_a_manifest_that_cannot_be_read_files_are_sent_but_no_checkpoint(http, files, refuse):
    refuse("manifest.json")
    assert http.get(f"{files}/export/model.safetensors").status_code == 200
    answer = http.get(f"{files}/checkpoints/step-5/state.pt")
    assert answer.status_code == 503, "a 404 would say that it has been removed"
    assert http.get(f"{files}/export/manifest.json").status_code == 503


def test_folders_within_folders_are_listed_however_deep(http, folder, files):
    deep = folder.path / "/".join("d" * 400)
    deep.mkdir(parents=True)
    (deep / "a.txt").write_bytes(b"x")
    assert f"{'/'.join('d' * 400)}/a.txt" in {file["path"] for file in http.get(files).json()["items"]}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_to_ask_for_a_digest_takes_the_room_of_a_download(http, files, method):
    """It reads gigabytes: who may not begin another download may not begin this either."""
    place = f"{files}/spec.yaml?sha256=true"
    seats, caller = http.app.state.seats, Caller("ada", Role.USER, token_id="t")
    with seats.seat(caller), pytest.MonkeyPatch().context() as patch:
        patch.setattr("service.api.live.seats.MOST_VIEWERS", 1)
        answer = http.request(method, place)
        assert answer.status_code == 503
    answer = http.request(method, place)
    assert answer.status_code == 200
    assert re.fullmatch(r"sha-256=:.{43}=:", answer.headers["Repr-Digest"])
