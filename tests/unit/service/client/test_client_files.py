"""Files of an experiment in the hands of a Python user: listed, downloaded, checked, gone on with."""

import errno
import io
import os

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.app import create_app
from service.client import download, transport
from service.client.client import Client
from service.client.download import Downloaded, local_path
from service.client.download_display import downloading, size_of
from service.client.errors import (
    CannotWrite,
    DownloadDamaged,
    DownloadIncomplete,
    FileUnreadable,
    NoFileMatches,
    NotReady,
    ServerUnreachable,
    UnsafePath,
)
from tests.support.live_server import serving
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder

WEIGHTS = os.urandom(3_000_000)


class Network:
    """Stands before the app and does to its answers what networks do; `ranges` are those that were asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.cut_after_bytes = [0]  # of each answer to come, 0: not at all; the last one stays
        self.flip = False
        self.ranges: list[str] = []
        self.before = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "/files/" not in scope["path"] or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        self.before()
        self.ranges.append(dict(scope["headers"]).get(b"range", b"").decode())
        left = self.cut_after_bytes.pop(0) if len(self.cut_after_bytes) > 1 else self.cut_after_bytes[0]
        left = left or 1 << 60

        async def passing(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.body" and message["body"]:
                body = message["body"]
                if self.flip:
                    body = bytes([body[0] ^ 1]) + body[1:]
                message = {**message, "body": body[: max(0, left)]}
                left -= len(body)
                message["more_body"] = message.get("more_body", False) or left < 0  # there is no end: uvicorn hangs up
            await send(message)

        await self.app(scope, receive, passing)


@pytest.fixture
def network(settings, monkeypatch):
    monkeypatch.setattr(transport, "FIRST_PAUSE_SECONDS", 0.01)
    return Network(create_app(settings))


@pytest.fixture
def client(network):
    with serving(network) as url, Client(url, tries=2) as client:
        yield client


@pytest.fixture
def experiment(client, settings):
    experiment = client.submit(spec_dict())
    folder = ExperimentFolder(settings.storage_root, experiment.id)
    for name, content in {
        "spec.yaml": b"name: a\n",
        "attempts/1/rank-0.log": b"one\n",
        "attempts/1/rank-1.log": b"",
        "export/model.safetensors": WEIGHTS,
    }.items():
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return experiment


@pytest.fixture
def weights(experiment, settings):
    return ExperimentFolder(settings.storage_root, experiment.id).weights


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["attempts/1/rank-0.log", "attempts/1/rank-1.log", "export/model.safetensors", "spec.yaml"]),
        ("*.log", ["attempts/1/rank-0.log", "attempts/1/rank-1.log"]),
        ("export/*", ["export/model.safetensors"]),
        ("model.safetensors", ["export/model.safetensors"]),
        ("rank-[0].log", ["attempts/1/rank-0.log"]),
        ("*.onnx", []),
    ],
)
def test_a_pattern_is_held_against_path_and_name(experiment, pattern, expected):
    assert [file.path for file in experiment.files(pattern)] == expected


def test_a_list_of_several_pages_is_fetched_whole(experiment, weights):
    for index in range(250):
        (weights.parent / f"{index:03}.txt").write_bytes(b"")
    assert len(experiment.files()) == 254


def test_what_is_downloaded_is_what_the_server_has_and_a_second_time_it_is_there(experiment, network, tmp_path):
    paths = experiment.download(to=tmp_path / "here")
    assert [str(path.relative_to(tmp_path / "here")) for path in paths] == [file.path for file in experiment.files()]
    assert (tmp_path / "here/export/model.safetensors").read_bytes() == WEIGHTS
    assert (tmp_path / "here/attempts/1/rank-1.log").read_bytes() == b""
    asked = len(network.ranges)
    assert experiment.download(to=str(tmp_path / "here")) == paths
    assert len(network.ranges) == asked
    (tmp_path / "here/export/model.safetensors").write_bytes(WEIGHTS[::-1])  # as long, but another
    experiment.download("export/*", to=tmp_path / "here")
    assert (tmp_path / "here/export/model.safetensors").read_bytes() == WEIGHTS
    assert sorted(path.name for path in (tmp_path / "here/export").iterdir()) == ["model.safetensors"]


def test_without_a_folder_they_go_into_one_of_the_experiments_id(experiment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment.download("spec.yaml")
    assert (tmp_path / experiment.id / "spec.yaml").read_bytes() == b"name: a\n"


def test_a_cut_connection_is_taken_up_where_it_was_cut(experiment, network, tmp_path):
    network.cut_after_bytes = [1_000_000, 500_000, 10, 0]
    (path,) = experiment.download("export/*", to=tmp_path)
    assert path.read_bytes() == WEIGHTS
    begins = [int(wanted.removeprefix("bytes=").removesuffix("-") or 0) for wanted in network.ranges]
    assert begins[0] == 0
    assert 0 < begins[1] <= begins[2] < len(WEIGHTS)
    assert len(begins) == 4


def test_the_next_call_goes_on_with_what_an_earlier_one_left(experiment, network, tmp_path):
    network.cut_after_bytes = [1_000_000, 1]
    with pytest.raises(ServerUnreachable):
        experiment.download("export/*", to=tmp_path)
    assert not (tmp_path / "export/model.safetensors").exists(), "half a file has not its name"
    network.cut_after_bytes, network.ranges = [0], []
    (path,) = experiment.download("export/*", to=tmp_path)
    assert path.read_bytes() == WEIGHTS
    assert [bool(wanted) for wanted in network.ranges] == [True]


def test_a_file_that_changes_between_two_pieces_is_begun_anew(experiment, network, weights, tmp_path):
    network.cut_after_bytes = [1_000_000, 0]
    network.before = lambda: weights.write_bytes(WEIGHTS[::-1] + b"more") if network.ranges else None
    (path,) = experiment.download("export/*", to=tmp_path)
    assert path.read_bytes() == WEIGHTS[::-1] + b"more"


def test_what_is_damaged_on_its_way_is_not_kept(experiment, network, tmp_path):
    network.flip = True
    with pytest.raises(DownloadDamaged, match=r"export/model\.safetensors does not have the SHA-256"):
        experiment.download("export/*", to=tmp_path)
    assert not (tmp_path / "export/model.safetensors").exists()
    network.flip = False
    (path,) = experiment.download("export/*", to=tmp_path)
    assert path.read_bytes() == WEIGHTS


def test_a_log_that_grows_between_list_and_download_comes_whole(experiment, network, settings, tmp_path):
    log = ExperimentFolder(settings.storage_root, experiment.id).attempt(1).log(0)
    network.before = lambda: log.write_bytes(b"one\ntwo\n")
    (path,) = experiment.download("rank-0.log", to=tmp_path)
    assert path.read_bytes() == b"one\ntwo\n"


def test_what_is_removed_meanwhile_does_not_stop_the_others(experiment, network, weights, tmp_path, caplog):
    network.before = lambda: weights.unlink(missing_ok=True)
    names = {path.name for path in experiment.download(to=tmp_path)}
    assert names == {"spec.yaml", "rank-0.log", "rank-1.log"}
    assert "export/model.safetensors" in caplog.text


def test_a_pattern_that_nothing_matches_names_what_there_is(client, experiment, tmp_path):
    with pytest.raises(NoFileMatches, match=r"no file .* matches '\*\.onnx'; there are attempts/1/rank-0\.log, "):
        experiment.download("*.onnx", to=tmp_path)
    with pytest.raises(NoFileMatches, match="has no files yet"):
        client.submit(spec_dict()).download(to=tmp_path)


def test_a_folder_that_cannot_be_written_is_named(experiment, tmp_path):
    (tmp_path / "export").write_bytes(b"a file")
    with pytest.raises(CannotWrite, match="export"):
        experiment.download("export/*", to=tmp_path)


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "a/../../b", "", ".", ".bashrc", "a/.git/b", "a\nb"])
def test_a_server_cannot_write_outside_the_folder(path, tmp_path):
    with pytest.raises(UnsafePath):
        local_path(tmp_path, path)


@pytest.mark.parametrize("path", ["C:a", "a\\b"])
def test_on_windows_neither_a_colon_nor_a_backslash_leads_away(path, tmp_path, monkeypatch):
    assert local_path(tmp_path, path) == tmp_path / path
    monkeypatch.setattr(download, "LEADS_AWAY", "/\\:")
    with pytest.raises(UnsafePath):
        local_path(tmp_path, path)


ODD = {"attempts/1/12:30.log": b"a", "attempts/1/a\\b.log": b"b", f"{'n' * 255}": b"c", "ü ? * | < >.txt": b"d"}


@pytest.fixture
def odd(experiment, settings):
    folder = ExperimentFolder(settings.storage_root, experiment.id).path
    for name, content in ODD.items():
        (folder / name).write_bytes(content)


def in_folder(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_name_that_this_disk_takes_is_downloaded_whatever_its_characters(experiment, odd, tmp_path):
    experiment.download(to=tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in ODD} == ODD


def test_one_that_cannot_be_put_anywhere_does_not_stop_the_others_and_is_named(experiment, odd, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LEADS_AWAY", "/:")
    with pytest.raises(UnsafePath, match="12:30"):
        experiment.download(to=tmp_path / "here")
    assert in_folder(tmp_path / "here") == (
        {*ODD} | {"attempts/1/rank-0.log", "attempts/1/rank-1.log", "export/model.safetensors", "spec.yaml"}
    ) - {"attempts/1/12:30.log"}


def test_of_several_that_fail_each_is_named(experiment, tmp_path, monkeypatch):
    (tmp_path / "export").write_bytes(b"a file")
    (tmp_path / "attempts/1/rank-0.log").mkdir(parents=True)
    with pytest.raises(DownloadIncomplete, match="2 files could not be downloaded, 2 are there") as error:
        experiment.download(to=tmp_path)
    assert "rank-0.log cannot be written" in str(error.value)
    assert "model.safetensors cannot be written" in str(error.value)
    assert (tmp_path / "spec.yaml").read_bytes() == b"name: a\n"


def test_a_full_disk_is_not_tried_with_every_file(experiment, network, tmp_path, monkeypatch):
    def full(self, report):
        tried.append(self)
        raise CannotWrite("full") from OSError(errno.ENOSPC, "No space left on device")

    tried = []
    monkeypatch.setattr(download.Download, "fetch", full)
    with pytest.raises(CannotWrite):
        experiment.download(to=tmp_path)
    assert len(tried) == 1


@pytest.fixture
def refuse(monkeypatch):
    """Have the server's file system refuse to open what has this name."""
    refused = set()
    real = os.open

    def opening(path, *args, **more):
        if path in refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path, *args, **more)

    monkeypatch.setattr("service.experiments.files.os.open", opening)
    return refused.add


def test_what_the_server_cannot_read_does_not_stop_the_others_and_is_named(experiment, refuse, tmp_path, caplog):
    refuse("model.safetensors")
    with pytest.raises(FileUnreadable, match=r"export/model\.safetensors cannot be downloaded: .*Input/output error"):
        experiment.download(to=tmp_path / "here")
    assert in_folder(tmp_path / "here") == {"spec.yaml", "attempts/1/rank-0.log", "attempts/1/rank-1.log"}
    assert len(experiment.files()) == 3
    assert "export/model.safetensors of" in caplog.text, "a list without it says so"
    with pytest.raises(FileUnreadable):
        experiment.download("export/*", to=tmp_path)


def test_what_cannot_be_read_any_more_once_it_is_asked_for_does_not_stop_the_others(
    experiment, network, refuse, tmp_path, monkeypatch
):
    monkeypatch.setattr(transport, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("service.api.problems.RETRY_AFTER_SECONDS", "0")
    network.before = lambda: refuse("model.safetensors")
    with pytest.raises(FileUnreadable, match=r"export/model\.safetensors: .*Input/output error"):
        experiment.download(to=tmp_path)
    assert (tmp_path / "spec.yaml").exists()


def test_a_server_that_is_not_ready_is_not_asked_for_every_file(experiment, network, refuse, tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "LONGEST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr("service.api.problems.RETRY_AFTER_SECONDS", "0")
    network.before = lambda: [refuse(name) for name in ("rank-0.log", "rank-1.log", "spec.yaml")]
    with pytest.raises(NotReady):
        experiment.download(to=tmp_path)
    assert not (tmp_path / "export").exists()


def test_in_a_pipe_each_file_is_a_line_and_on_a_terminal_there_is_a_bar(experiment, tmp_path, monkeypatch):
    files = experiment.files()
    plain, terminal = io.StringIO(), io.StringIO()
    with downloading(plain, files) as display:
        for file in files:
            display.report(file, file.size)
            display.done(Downloaded(file, tmp_path))
        display.done(Downloaded(files[0], None, error=CannotWrite()))
    assert plain.getvalue().splitlines()[2] == "   3.0 MB  export/model.safetensors"
    assert plain.getvalue().splitlines()[-1] == "   failed  attempts/1/rank-0.log"
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with downloading(terminal, files) as display:
        display.report(files[2], 1_500_000)
        display.done(Downloaded(files[2], tmp_path))
    assert "3.0/3.0 MB" in terminal.getvalue()


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (5 * 10**15, "5000.0 TB")]
)
def test_sizes_are_read_by_people(count, text):
    assert size_of(count) == text
