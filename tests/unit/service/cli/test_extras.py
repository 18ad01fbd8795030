"""What works where only some extras are installed, and what a command says whose extra is missing."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from service.api.app import create_app
from service.cli.extras import BY_COMMAND, BY_MODULE
from service.cli.main import app
from service.client.client import Client
from tests.support.live_server import serving
from tests.support.only_extras import PROJECT, hidden_modules, run_with_extras
from tests.support.specs import spec_dict


@pytest.fixture
def database_url(tmp_path):
    return f"sqlite:///{tmp_path / 'home' / 'cbam.db'}"


def base_cbam(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_with_extras(code="from service.cli.main import main; main()", words=words, **environment)


def test_what_is_hidden_is_all_that_is_heavy():
    hidden = hidden_modules()
    assert {"torch", "ray", "mlflow", "fastapi", "sqlalchemy", "numpy", "pydantic_settings", "psutil"} <= set(hidden)
    assert not {"pydantic", "httpx2", "typer", "rich", "yaml", "cbam_core", "workers", "service"} & set(hidden)
    assert "ModuleNotFoundError" in run_with_extras(code="import numpy").stderr


@pytest.mark.parametrize(
    ("extras", "modules"),
    [
        (
            (),
            "cbam_core.spec, service.client, service.cli.main, service.client.progress_display, "
            "service.client.comparing.display, service.client.comparing.specs, service.cli.comparison_specs",
        ),
        (
            ("service",),
            "service.api.__main__, service.dispatcher.__main__, service.cluster.ray.cluster, service.stack.stack, "
            "service.database.backup, service.database.migrate, service.auth.local_tokens",
        ),
        (
            ("worker",),
            "workers.actor, workers.attempt, workers.tracking.mlflow_tracker, mlflow.pytorch, cbam_core.explain.maps",
        ),
    ],
)
def test_an_extra_is_enough_to_import(extras: tuple[str, ...], modules: str):
    ran = run_with_extras(*extras, code=f"import {modules}")
    assert ran.returncode == 0, ran.stderr


def test_a_client_without_a_url_needs_no_settings_of_a_server(tmp_path):
    code = "from service.client import Client; print(Client().base_url)"
    ran = run_with_extras(code=code, CBAM_URL="", CBAM_HOME=str(tmp_path), CBAM_PORT="no number")
    assert ran.stdout.strip() == "http://127.0.0.1:8000", ran.stderr


def test_the_base_commands_work_against_a_server(settings, tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(spec_dict(name="from-a-laptop")))
    with serving(create_app(settings)) as url:
        submitted = base_cbam("submit", spec, "--json", CBAM_URL=url)
        assert submitted.returncode == 0, submitted.stderr
        listed, cluster = base_cbam("list", CBAM_URL=url), base_cbam("cluster", CBAM_URL=url)
        with Client(url) as client:
            (view,) = client.list()
    assert view.name == "from-a-laptop"
    assert view.id in listed.stdout
    assert cluster.returncode == 0, cluster.stderr


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("up",), "all"),
        (("demo",), "all"),
        (("doctor",), "all"),
        (("down",), "service"),
        (("backup", "here.tar"), "service"),
        (("restore", "here.tar"), "service"),
        (("token", "create", "ada", "--local"), "service"),
        (("train", "spec.yaml"), "worker"),
        (("export", "a.pt", "b.pt"), "worker"),
    ],
)
def test_a_command_names_the_extra_that_is_missing(tmp_path, monkeypatch, words: tuple[str, ...], extra: str):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec_dict()))
    root = str(Path(__file__).parents[4])
    ran = base_cbam(*words, CBAM_HOME=str(tmp_path / "home"), PYTHONPATH=root)
    assert ran.returncode == 2, ran.stderr
    assert ran.stdout == ""
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"cbam: `cbam {words[0]}` needs ")
    assert f"pip install 'cbam-lab[{extra}]'" in line
    assert not (tmp_path / "home").exists()


def test_a_stack_without_torch_is_not_started(cbam, tmp_path, monkeypatch):
    monkeypatch.setenv("CBAM_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "torch", None)
    code, _, err = cbam("up")
    assert code == 2
    assert "pip install 'cbam-lab[all]'" in err
    assert not (tmp_path / "home").exists()


def test_the_driver_of_a_database_is_named(cbam, tmp_path, monkeypatch):
    monkeypatch.setenv("CBAM_HOME", str(tmp_path))
    monkeypatch.setenv("CBAM_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/none")
    monkeypatch.setitem(sys.modules, "psycopg", None)
    code, _, err = cbam("backup", tmp_path / "backup")
    assert code == 2
    assert "pip install 'cbam-lab[postgres]'" in err


def test_a_module_of_our_own_that_is_missing_is_no_missing_extra(cbam, monkeypatch):
    monkeypatch.setitem(sys.modules, "service.database.backup", None)
    with pytest.raises(ModuleNotFoundError):
        cbam("backup")


def test_every_extra_and_every_command_that_is_named_exists():
    extras = {extra for extra, _ in (*BY_COMMAND.values(), *BY_MODULE.values())}
    assert extras <= PROJECT["optional-dependencies"].keys()
    assert BY_COMMAND.keys() <= get_command(app).commands.keys()
