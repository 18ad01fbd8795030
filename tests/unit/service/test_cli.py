"""The `cbam` command as a user types it: answers to stdout, the rest to stderr, exit code 0 only on success."""

import json
import subprocess
import sys

import pytest
import yaml

from service.app import create_app
from service.cli.main import main
from service.cli.specs import overridden
from tests.live_server import serving
from tests.ray_head import free_port
from tests.specs import spec_dict


@pytest.fixture
def cbam(capsys, monkeypatch):
    """Runs the command; gives exit code, stdout, stderr."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["cbam", *map(str, words)])
        with pytest.raises(SystemExit) as leaving:
            main()
        out, err = capsys.readouterr()
        return leaving.value.code or 0, out, err

    return run


@pytest.fixture
def server(settings, monkeypatch):
    with serving(create_app(settings)) as url:
        monkeypatch.setenv("CBAM_URL", url)
        yield url


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(spec_dict()))
    return path


def test_submit_list_show_cancel(cbam, server, spec_file):
    code, out, _ = cbam("submit", spec_file, spec_file, "--set", "train.epochs=3", "--json")
    first, second = json.loads(out)
    assert code == 0
    assert first["id"] != second["id"]
    assert second["spec"]["train"]["epochs"] == 3

    code, out, _ = cbam("list", "--json", "-n", 1)
    assert [view["id"] for view in json.loads(out)] == [second["id"]]
    assert first["id"] in cbam("list")[1]

    assert "QUEUED" in cbam("show", first["id"])[1]
    assert json.loads(cbam("show", first["id"], "--json")[1])["id"] == first["id"]

    code, out, err = cbam("cancel", first["id"], "no-such-id")
    assert code == 1  # one of the two
    assert first["id"] in out
    assert err.startswith("no-such-id: ")
    assert cbam("logs", first["id"])[:2] == (0, "")


def test_preview_counts_what_the_paper_counts(cbam, server, spec_file):
    code, out, _ = cbam("preview", spec_file, "--json")
    (preview,) = json.loads(out)
    assert code == 0
    assert len(preview["sites"]) == 9  # CIFAR ResNet-20 has nine blocks


def test_everything_wrong_with_all_files_is_said_at_once_with_pointers(cbam, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text(yaml.safe_dump(spec_dict(colour="red", train={"epochs": "three"})))
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [")
    code, out, err = cbam("submit", bad, broken, tmp_path / "none.yaml")
    assert (code, out) == (2, "")
    assert "bad.yaml: /train/epochs: " in err
    assert "bad.yaml: /colour: " in err
    assert "broken.yaml: not valid YAML" in err
    assert "none.yaml" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [("no-such-verb",), ("submit",), ("list", "--state", "HAPPY")])
def test_wrong_usage_is_exit_code_2(cbam, words):
    assert cbam(*words)[0] == 2


def test_no_server_is_one_clear_message(cbam, monkeypatch):
    monkeypatch.setenv("CBAM_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr("service.client.TRIES", 1)
    code, out, err = cbam("list")
    assert (code, out) == (1, "")
    assert "cbam up" in err
    assert "Traceback" not in err


def test_an_impossible_setting_is_named(cbam, monkeypatch):
    monkeypatch.setenv("CBAM_HOST", "0.0.0.0")
    code, _, err = cbam("up")
    assert code == 1
    assert "CBAM_HOST" in err
    assert "loopback" in err


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs=3", {"train": {"epochs": 3, "seed": 1}}),
        ("train.optimizer.lr=1e-3", {"train": {"epochs": 1, "seed": 1, "optimizer": {"lr": 0.001}}}),
        ("stages=[1, 2]", {"train": {"epochs": 1, "seed": 1}, "stages": [1, 2]}),
        ("root=a=b", {"train": {"epochs": 1, "seed": 1}, "root": "a=b"}),
        ("root=", {"train": {"epochs": 1, "seed": 1}, "root": None}),
    ],
)
def test_set_puts_a_yaml_value_in_its_place(override, expected):
    fields = {"train": {"epochs": 1, "seed": 1}}
    assert overridden(fields, [override]) == expected
    assert fields == {"train": {"epochs": 1, "seed": 1}}


@pytest.mark.parametrize("override", ["epochs", "=3", "train..x=1", "name.x=1", "x=["])
def test_set_that_cannot_be_understood_is_refused(cbam, spec_file, override):
    assert cbam("submit", spec_file, "--set", override)[0] == 2


def test_the_help_loads_nothing_heavy():
    heavy = ("torch", "ray", "mlflow", "fastapi", "sqlalchemy", "pydantic", "httpx")
    code = f"import sys, service.cli.main; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
