"""The files of an experiment over HTTP: listed, sent in ranges, given out by links, and nothing beside them."""

import hashlib
import json
import os
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

import httpx2
import pytest
from fastapi.testclient import TestClient

from cbam_core.spec import CheckpointSpec
from service.api.app import create_app
from service.auth import file_links
from service.auth.tokens import Tokens
from service.domain.roles import Role
from service.domain.states import Move, State
from service.domain.values import utc_now
from service.experiments import files as stored
from service.schemas.auth import TokenRequest
from tests.support.live_server import serving
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder
from workers.train.checkpoint import Checkpoints

WEIGHTS = bytes(range(256)) * 8192  # 2 MiB: larger than what a list hashes at once
SECRET = "another's"


@pytest.fixture
def folder(http, settings):
    """An experiment in the middle of its training, as its workers left it so far."""
    experiment_id = http.post("/v1/experiments", json=spec_dict()).json()["id"]
    folder = ExperimentFolder(settings.storage_root, experiment_id)
    for name, content in {
        "spec.yaml": b"name: a\n",
        "tracking.jsonl": b"{}\n",
        "mlflow_run.json": b'{"creation": "secret"}',
        "predictions.parquet": b"PAR1",
        "attempts/1/rank-0.log": b"one\ntwo\n",
        "attempts/1/fence": b'{"token": "secret"}',
        "attempts/1/result.json": b'{"token": "secret"}',
        "export/model.safetensors": WEIGHTS,
        "export/confusion_matrix.json": b"{}",
        "export/confusion_matrix.png": b"\x89PNG",
        "export/.model.onnx.a1b2c3": b"half",
        ".hidden/a.log": b"hidden",
    }.items():
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def files(folder):
    return f"/v1/experiments/{folder.experiment_id}/files"


@pytest.fixture
def listed(http, files):
    """What the list says now, by path."""
    return lambda **query: {item["path"]: item for item in http.get(files, params=query).json()["items"]}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def bearer(http, name: str, role: Role = Role.USER) -> tuple[str, dict[str, str]]:
    row, secret = Tokens(http.app.state.store.database).create(TokenRequest(name=name, role=role), by="test")
    return row.id, {"Authorization": f"Bearer {secret}"}


def test_the_list_tells_size_digest_and_kind_and_leaves_out_records_and_what_is_half_written(folder, listed):
    found = listed()
    assert {path: item["kind"] for path, item in found.items()} == {
        "attempts/1/rank-0.log": "log",
        "export/confusion_matrix.json": "confusion_matrix",
        "export/confusion_matrix.png": "figure",
        "export/model.safetensors": "weights",
        "predictions.parquet": "predictions",
        "spec.yaml": "spec",
        "tracking.jsonl": "journal",
    }
    assert list(found) == sorted(found)
    assert found["spec.yaml"]["sha256"] == digest(b"name: a\n")
    assert found["spec.yaml"]["size"] == 8
    assert found["export/model.safetensors"]["sha256"] is None, "two megabytes are not read for a list"


def test_a_list_of_many_comes_in_pages(http, files, listed):
    paths, cursor = [], ""
    while cursor is not None:
        page = http.get(files, params={"limit": 3, "cursor": cursor}).json()
        paths += [item["path"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert paths == list(listed())


def test_an_experiment_that_has_not_begun_has_no_files(http):
    path = http.post("/v1/experiments", json=spec_dict()).headers["Location"]
    assert http.get(f"{path}/files").json() == {"items": [], "unreadable": [], "next_cursor": None}
    assert http.get("/v1/experiments/nothere/files").status_code == 404
    assert http.get("/v1/experiments/nothere/files/spec.yaml").status_code == 404


def test_a_file_is_sent_with_what_a_program_needs_and_a_browser_must_not_show(http, files):
    answer = http.get(f"{files}/export/model.safetensors", params={"sha256": True})
    assert (answer.status_code, answer.content) == (200, WEIGHTS)
    expected = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(WEIGHTS)),
        "Content-Disposition": 'attachment; filename="model.safetensors"',
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{b64encode(hashlib.sha256(WEIGHTS).digest()).decode()}:",
    }
    assert {name: answer.headers[name] for name in expected} == expected
    head = http.head(f"{files}/export/model.safetensors")
    assert (head.status_code, head.content) == (200, b"")
    assert {name: head.headers[name] for name in expected} == expected, "it is known now"
    assert http.get(f"{files}/attempts/1/rank-0.log").headers["Content-Type"] == "text/plain; charset=utf-8"


def test_a_digest_is_computed_once_for_each_version(http, files, folder, listed, monkeypatch):
    read = []
    real = os.pread
    monkeypatch.setattr("os.pread", lambda fd, count, at: read.append(count) or real(fd, count, at))
    for _ in range(3):
        http.head(f"{files}/export/model.safetensors", params={"sha256": True})
    assert sum(read) == len(WEIGHTS)
    assert listed()["export/model.safetensors"]["sha256"] == digest(WEIGHTS)
    folder.weights.write_bytes(WEIGHTS[::-1])
    assert listed()["export/model.safetensors"]["sha256"] is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        *(("bytes=0-9", (0, 10)), ("bytes=10-", (10, 2**21)), ("bytes=-5", (2**21 - 5, 2**21))),
        *(("bytes=2097151-2097151", (2**21 - 1, 2**21)), ("bytes=5-99999999999", (5, 2**21))),
        *(("bytes=-99999999", (0, 2**21)), ("bytes = 0-1", None), ("bytes=5-4", None), ("bytes=-", None)),
        *(("bytes=0-1,4-5", None), ("lines=0-1", None), ("bytes=٣-4", None), ("bytes=a-b", None), ("bytes=+1-2", None)),
    ],
)
def test_ranges(http, files, header, expected):
    """What is not one range of bytes is as if it were absent (RFC 9110, 14.2)."""
    answer = http.get(f"{files}/export/model.safetensors", headers={"Range": header.encode()})
    if expected is None:
        assert (answer.status_code, len(answer.content)) == (200, len(WEIGHTS))
        return
    begin, end = expected
    assert (answer.status_code, answer.content) == (206, WEIGHTS[begin:end])
    assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{len(WEIGHTS)}"
    assert answer.headers["Content-Length"] == str(end - begin)


@pytest.mark.parametrize("header", ["bytes=2097152-", "bytes=-0", "bytes=9999999999999999999-"])
def test_a_range_that_the_file_does_not_have_is_a_416(http, files, header):
    answer = http.get(f"{files}/export/model.safetensors", headers={"Range": header})
    assert (answer.status_code, answer.headers["Content-Type"]) == (416, "application/problem+json")
    assert answer.headers["Content-Range"] == f"bytes */{len(WEIGHTS)}"


def test_a_range_goes_on_only_with_the_version_that_it_began_with(http, files, folder):
    place = f"{files}/export/model.safetensors"
    tag = http.head(place).headers["ETag"]
    ranged = {"Range": "bytes=10-19", "If-Range": tag}
    assert http.get(place, headers=ranged).status_code == 206
    assert http.get(place, headers={"If-None-Match": f'"x", {tag}'}).status_code == 304
    assert http.get(place, headers={"If-None-Match": f"W/{tag}"}).status_code == 304, "as a proxy that packs gives it"
    assert http.get(place, headers={"If-None-Match": "*"}).status_code == 304
    folder.weights.write_bytes(WEIGHTS + b"more")
    assert (http.get(place, headers=ranged).status_code, http.head(place).headers["ETag"] == tag) == (200, False)
    by_time = {"Range": "bytes=10-19", "If-Range": http.head(place).headers["Last-Modified"]}
    assert http.get(place, headers=by_time).status_code == 200, "a second may hold two versions"


def test_an_empty_file_is_sent(http, files, folder):
    folder.attempt(1).log(0).write_bytes(b"")
    answer = http.get(f"{files}/attempts/1/rank-0.log", params={"sha256": True})
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "0")
    assert http.get(f"{files}/attempts/1/rank-0.log", headers={"Range": "bytes=0-"}).status_code == 416


def test_a_file_that_grows_while_it_is_sent_is_as_long_as_when_it_was_asked_for(settings, folder, files):
    """Starlette's own FileResponse reads to the end: more than was announced, and the connection breaks."""
    log = folder.attempt(1).log(0)
    log.write_bytes(b"line\n" * 400_000)
    with serving(create_app(settings)) as url, httpx2.stream("GET", f"{url}{files}/attempts/1/rank-0.log") as answer:
        parts = answer.iter_bytes()
        begin = next(parts)
        with log.open("ab") as file:
            file.write(b"more\n" * 400_000)
        assert begin + b"".join(parts) == b"line\n" * 400_000


def test_a_file_that_is_cut_while_it_is_sent_is_not_taken_for_whole(settings, folder, files):
    log = folder.attempt(1).log(0)
    log.write_bytes(b"line\n" * 4_000_000)
    with serving(create_app(settings)) as url, httpx2.stream("GET", f"{url}{files}/attempts/1/rank-0.log") as answer:
        parts = answer.iter_bytes()
        next(parts)
        os.truncate(log, 5)
        with pytest.raises(httpx2.RemoteProtocolError):
            list(parts)


def test_a_checkpoint_is_there_once_it_is_whole_and_its_digest_is_that_of_its_manifest(http, folder, files, listed):
    import torch

    state = "checkpoints/step-5/state.pt"
    checkpoints = Checkpoints(folder.checkpoints, CheckpointSpec())
    checkpoints.save(5, {"weights": torch.arange(500_000)}, {})
    path = folder.path / state
    assert listed()[state]["sha256"] == digest(path.read_bytes())
    assert listed()[state]["kind"] == "checkpoint"
    assert path.stat().st_size > stored.HASHED_AT_ONCE_BYTES
    (folder.path / "checkpoints/step-5/manifest.json").unlink()  # what is removed, or written again, loses it first
    assert not [name for name in listed() if name.startswith("checkpoints")]
    assert http.get(f"{files}/{state}").status_code == 404


def test_what_was_written_after_its_manifest_has_another_digest(folder, listed):
    folder.export.joinpath("manifest.json").write_text(
        json.dumps({"files": {"model.safetensors": {"bytes": len(WEIGHTS), "sha256": digest(WEIGHTS)}}})
    )
    assert listed()["export/model.safetensors"]["sha256"] == digest(WEIGHTS)
    folder.weights.write_bytes(WEIGHTS[::-1])
    later = folder.export.joinpath("manifest.json").stat().st_mtime_ns + 1
    os.utime(folder.weights, ns=(later, later))
    assert listed()["export/model.safetensors"]["sha256"] is None


PATHS = [
    *("../other/spec.yaml", "..%2fother%2fspec.yaml", "%2e%2e/other/spec.yaml", "%2e%2e%2fother%2fspec.yaml"),
    *("export/../../other/spec.yaml", "export/..%2f..%2fother%2fspec.yaml", "/etc/passwd", "%2fetc%2fpasswd"),
    *("..%252fother%252fspec.yaml", "..%5cother%5cspec.yaml", "spec.yaml%00", "%00", "spec.yaml%0d%0aX:y", "%2e"),
    *(
        "export",
        "export/",
        "export/%2e/model.safetensors",
        "//spec.yaml",
        "export//model.safetensors",
        "%c0%ae%c0%ae/other/spec.yaml",
    ),
    *("export/.model.onnx.a1b2c3", ".hidden/a.log", "attempts/1/fence", "attempts/1/result.json", "mlflow_run.json"),
    *("link.yaml", "folder/spec.yaml", "loop", "pipe", "a" * 300, "spec.yaml/", "spec.yaml/x", "nothing"),
]


def open_below(folder):
    """The open files of this process that lie in a folder."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the folder of descriptors itself
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in found if path.startswith(str(folder))]


def test_nothing_but_the_files_of_the_experiment_is_sent(http, settings, folder, files, listed):
    other = settings.storage_root / "experiments" / "other"
    other.mkdir()
    (other / "spec.yaml").write_text(SECRET)
    (folder.path / "link.yaml").symlink_to(other / "spec.yaml")
    (folder.path / "folder").symlink_to(other)
    (folder.path / "loop").symlink_to("loop")
    os.mkfifo(folder.path / "pipe")
    for path in PATHS:
        for method in ("GET", "HEAD", "POST"):
            answer = http.request(method, f"{files}/{path}{'/link' * (method == 'POST')}")
            assert answer.status_code in (404, 405), path  # 405: the client itself has taken the dots out
            assert "secret" not in answer.text
            assert SECRET not in answer.text
    assert {"link.yaml", "folder/spec.yaml", "loop", "pipe"}.isdisjoint(listed())
    assert open_below(settings.storage_root) == []


def test_an_experiments_folder_that_is_a_link_is_not_followed(http, settings, tmp_path):
    experiment_id = http.post("/v1/experiments", json=spec_dict()).json()["id"]
    (tmp_path / "spec.yaml").write_text(SECRET)
    path = ExperimentFolder(settings.storage_root, experiment_id).path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(tmp_path)
    assert http.get(f"/v1/experiments/{experiment_id}/files").json()["items"] == []
    assert http.get(f"/v1/experiments/{experiment_id}/files/spec.yaml").status_code == 404


def test_a_name_cannot_break_out_of_its_header(http, folder, files):
    name = 'a"; filename=evil.html; x=ü.log'
    (folder.path / "attempts/1" / name).write_bytes(b"x")
    answer = http.get(f"{files}/attempts/1/{name}")
    assert answer.status_code == 200
    told = answer.headers["Content-Disposition"]
    assert told == "attachment; filename*=UTF-8''a%22%3B%20filename%3Devil.html%3B%20x%3D%C3%BC.log"


def test_storage_that_fails_is_a_503(http, files, monkeypatch):
    def fail(*_args, **_more):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("service.experiments.files.os.open", fail)
    for path in (files, f"{files}/spec.yaml"):
        answer = http.get(path)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
        assert "Input/output error" in answer.json()["detail"]


def test_who_may_read_an_experiment_may_read_its_files_and_nobody_else(http, files):
    _, viewer = bearer(http, "eve", Role.VIEWER)
    place = f"{files}/spec.yaml"
    for method in ("GET", "HEAD"):
        assert http.request(method, place).status_code == 401
        assert http.request(method, place, headers=viewer).status_code == 200
    assert http.get(files).status_code == 401
    assert http.get(files, headers=viewer).status_code == 200
    assert http.post(f"{place}/link").status_code == 401
    assert http.post(f"{place}/link", headers=viewer).status_code == 403, "it would be something made"


def link_of(http, files, **more):
    made = http.post(f"{files}/export/model.safetensors/link", **more)
    assert made.status_code == 201
    return made.json()["url"]


def test_a_link_works_once_and_without_a_token_on_whichever_server(http, settings, files):
    _, ada = bearer(http, "ada")
    url = link_of(http, files, headers=ada)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as other:
        assert other.head(url).status_code == 405, "to look is not to use"
        answer = other.get(url)
        assert (answer.status_code, answer.content) == (200, WEIGHTS)
        assert answer.headers["Content-Disposition"] == 'attachment; filename="model.safetensors"'
        assert (other.get(url).status_code, http.get(url).status_code) == (404, 404)
    ranged = http.get(link_of(http, files, headers=ada), headers={"Range": "bytes=5-9"})
    assert (ranged.status_code, ranged.content) == (206, WEIGHTS[5:10])


def test_of_many_who_use_a_link_at_once_one_gets_the_file(settings, http, files):
    url = link_of(http, files)
    with serving(create_app(settings)) as one, serving(create_app(settings)) as two, ThreadPoolExecutor(8) as pool:
        places = [f"{server}{url}" for server in (one, two) * 8]
        codes = list(pool.map(lambda place: httpx2.get(place, timeout=60).status_code, places))
    assert sorted(codes)[:2] == [200, 404]


@pytest.mark.parametrize(
    "change", ["too late", "revoked", "closed meanwhile", "another name", "another key", "deleted"]
)
def test_a_link_ends(http, files, folder, leader, monkeypatch, change):
    token_id, ada = (None, {}) if change == "closed meanwhile" else bearer(http, "ada")
    url = link_of(http, files, headers=ada)
    if change == "too late":
        later = utc_now() + timedelta(seconds=file_links.LIFE_SECONDS + 1)
        monkeypatch.setattr(file_links, "utc_now", lambda: later)
    elif change == "revoked":
        Tokens(http.app.state.store.database).revoke(token_id)
    elif change == "closed meanwhile":
        bearer(http, "ada")
    elif change == "another name":
        url = url.replace("model.safetensors", "spec.yaml")
    elif change == "another key":
        url = url[:-1] + ("a" if url[-1] != "a" else "b")
    else:
        leader.apply(leader.queue()[0], Move(State.CANCELLED))
        http.app.state.store.delete(folder.experiment_id, by="test")
    answer = http.get(url)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("settings", [{"failed_logins_per_minute": 3}], indirect=True)
def test_who_guesses_links_is_told_to_wait(http):
    codes = [http.get("/v1/downloads/a.pt", params={"key": f"cbam_link_{index}"}).status_code for index in range(5)]
    assert codes == [404, 404, 404, 429, 429]
    assert http.get("/v1/whoami").status_code == 200, "a page of the web can make a browser do this"
