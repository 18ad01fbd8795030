"""A variable that is misspelt is named at the start: what nobody reads is not dropped in silence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from service.errors import StackError
from service.settings import ELSEWHERE, PREFIX, Settings, unknown_variables
from service.stack.settings import StackSettings, variable_of

ROOT = Path(__file__).parents[3]
SOURCES = ("service", "workers", "cbam_core", "docker", "docker-compose.yml", "scripts", ".ci", "tests/conftest.py")


@pytest.mark.parametrize("name", sorted(StackSettings.model_fields))
def test_every_setting_is_known_and_misspelt_it_is_named(name):
    variable = variable_of(name)
    assert unknown_variables({variable: "1"}) == []
    (line,) = unknown_variables({f"{variable}X": "1"})
    assert line.startswith(f"{variable}X is set, and no setting has this name (did you mean CBAM_")


def test_what_may_be_meant_is_said():
    (line,) = unknown_variables({"CBAM_QUOTA_DISC": "1GB", "CBAM_QUOTA_GPUS": "1", "PATH": "/", "QUOTA_DISC": "1"})
    assert line == "CBAM_QUOTA_DISC is set, and no setting has this name (did you mean CBAM_QUOTA_DISK?)"


def test_case_does_not_matter_as_it_does_not_to_pydantic():
    assert unknown_variables({"cbam_port": "1"}) == []
    assert len(unknown_variables({"cbam_prot": "1"})) == 1


def variables_in(*places: str) -> set[str]:
    found = subprocess.run(
        ["git", "grep", "-hoE", r"\bCBAM_[A-Z][A-Z0-9_]*[A-Z0-9]\b", "--", *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(found.stdout.split())


def test_what_any_part_of_the_project_reads_is_known():
    variables = variables_in(*SOURCES)
    assert len(variables) > 50
    assert unknown_variables(dict.fromkeys(variables, "1")) == []


def test_nothing_is_known_that_is_not_read_any_more():
    settings = {variable_of(name) for name in StackSettings.model_fields}
    assert {PREFIX + name for name in ELSEWHERE} - settings - variables_in(".") == set()


@pytest.mark.parametrize(("module", "stop"), [("service.api", "prepare"), ("service.dispatcher.__main__", "Database")])
def test_server_and_dispatcher_name_it_at_their_start(module, stop, tmp_path):
    """They are stopped where they would begin to work."""
    main = module if module.endswith("__main__") else f"{module}.__main__"
    code = f"""
import sys
from unittest.mock import patch
import {main} as started
with patch.object(started, "{stop}", side_effect=SystemExit(7)):
    started.main()
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"CBAM_HOME": str(tmp_path), "CBAM_LEASE_SECOND": "5"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=120,
    )
    assert ran.returncode == 7, ran.stderr
    assert "CBAM_LEASE_SECOND is set, and no setting has this name (did you mean CBAM_LEASE_SECONDS?)" in ran.stderr


def test_every_setting_is_read_by_its_prefix(monkeypatch):
    """Also those that bear the names of others, as RAY_ADDRESS."""
    monkeypatch.setenv("CBAM_RAY_ADDRESS", "there:1")
    assert Settings().ray_address == "there:1"


def test_the_local_stack_names_it_before_it_starts(cbam, monkeypatch):
    def no_stack(*_):
        raise StackError("not here")

    monkeypatch.setattr("service.cli.commands.stack.make_stack", no_stack)
    monkeypatch.setenv("CBAM_RAY_PROT", "1")
    code, _, err = cbam("up")
    assert code != 0
    assert "CBAM_RAY_PROT is set, and no setting has this name (did you mean CBAM_RAY_PORT?)" in err
