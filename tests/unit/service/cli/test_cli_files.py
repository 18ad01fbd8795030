"""`cbam files` and `cbam download`, as a user types them."""

import json

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
