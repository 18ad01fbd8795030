"""`cbam files` and `cbam download`, as a user types them."""

import errno
import json
import os
from pathlib import Path

import pytest

from service.api.app import create_app
from service.client.client import Client
from tests.support.live_server import serving
from tests.support.specs import spec_dict
from workers.protocol.storage import ExperimentFolder


@pytest.fixture
def experiment_id(settings, monkeypatch):
    """An experiment with two logs and weights."""
    with serving(create_app(settings)) as url, Client(url) as client:
        monkeypatch.setenv("CBAM_URL", url)
        folder = ExperimentFolder(settings.storage_root, client.submit(spec_dict()).id)
        for path in (folder.weights, folder.attempt(1).log(0), folder.attempt(1).log(1)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.name)
        yield folder.experiment_id


def test_files_are_listed_for_people_and_for_programs(cbam, experiment_id):
    code, out, _ = cbam("files", experiment_id[:6])
    assert code == 0
    assert [line.split()[:4] for line in out.splitlines()[1:]] == [
        ["attempts/1/rank-0.log", "log", "10", "B"],
        ["attempts/1/rank-1.log", "log", "10", "B"],
        ["export/model.safetensors", "weights", "17", "B"],
    ]
    code, out, _ = cbam("files", experiment_id, "export/*", "--json")
    assert [(file["path"], file["size"]) for file in json.loads(out)] == [("export/model.safetensors", 17)]


def test_a_download_tells_each_file_and_what_was_there(cbam, experiment_id, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = cbam("download", experiment_id)
    assert (code, out) == (0, "")
    assert "     17 B  export/model.safetensors\n" in err
    assert err.endswith("3 files downloaded\n")
    assert (tmp_path / experiment_id / "export/model.safetensors").read_text() == "model.safetensors"
    code, out, err = cbam("download", experiment_id, "*.log", "--to", experiment_id, "--json")
    assert json.loads(out) == {
        "files": [
            {"path": f"{experiment_id}/attempts/1/rank-0.log", "fetched": False},
            {"path": f"{experiment_id}/attempts/1/rank-1.log", "fetched": False},
        ]
    }


def test_what_cannot_be_downloaded_is_one_clear_line(cbam, experiment_id, tmp_path):
    code, out, err = cbam("download", experiment_id, "*.onnx", "--to", tmp_path)
    assert (code, out) == (1, "")
    assert err == (
        f"cbam: no file of {experiment_id} matches '*.onnx'; there are attempts/1/rank-0.log, attempts/1/rank-1.log, "
        "export/model.safetensors\n"
    )
    (tmp_path / "file").touch()
    code, _, err = cbam("download", experiment_id, "--to", tmp_path / "file")
    assert code == 1
    assert "cannot be written" in err
    assert "Traceback" not in err


def test_one_that_fails_is_named_at_the_end_and_the_others_are_there(cbam, experiment_id, tmp_path, monkeypatch):
    (tmp_path / "export").touch()
    code, out, err = cbam("download", experiment_id, "--to", tmp_path, "--json")
    assert code == 1
    assert [Path(file["path"]).name for file in json.loads(out)["files"]] == ["rank-0.log", "rank-1.log"]
    assert "   failed  export/model.safetensors" in err
    assert err.splitlines()[-1].startswith("cbam: ")
    assert "model.safetensors cannot be written" in err.splitlines()[-1]


def test_what_the_server_cannot_read_is_named_beside_the_list(cbam, experiment_id, monkeypatch):
    real = os.open

    def opening(path, *args, **more):
        if path == "rank-1.log":
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, *args, **more)

    monkeypatch.setattr("service.experiments.files.os.open", opening)
    code, out, err = cbam("files", experiment_id)
    assert code == 0
    assert "rank-0.log" in out
    assert "attempts/1/rank-1.log: shared storage cannot be read: Permission denied" in err
