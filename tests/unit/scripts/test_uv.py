"""scripts/uv: uv gets what pip's settings say of indexes and certificates, and uv's own settings beat them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHOWN = ("UV_DEFAULT_INDEX", "UV_INSECURE_HOST", "SSL_CERT_FILE", "UV_LINK_MODE", "VIRTUAL_ENV")


@pytest.fixture
def environment(tmp_path):
    """A virtual environment whose uv prints the variables that it is given."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/python").symlink_to(sys.executable)
    uv = folder / "bin/uv"
    uv.write_text(f"#!/bin/sh\n[ \"$1\" = cache ] && echo '{tmp_path}/cache' && exit\nenv\n")
    uv.chmod(0o755)
    return folder


def seen_by_uv(environment: Path, pip_config: str = "", **variables: str) -> dict[str, str]:
    """Those of the variables that reach uv."""
    config = environment.parent / "pip.conf"
    config.write_text(pip_config)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_", "SSL_"))}
    ran = subprocess.run(
        ["bash", str(ROOT / "scripts/uv"), str(environment), "pip", "list"],
        env=kept | {"PIP_CONFIG_FILE": str(config)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split("=", 1) for line in ran.stdout.splitlines() if "=" in line)
    return {name: found[name] for name in SHOWN if name in found}


def test_the_environment_variables_of_pip_reach_uv(environment):
    seen = seen_by_uv(
        environment,
        PIP_INDEX_URL="https://mirror.example/simple",
        PIP_TRUSTED_HOST="mirror.example",
        PIP_CERT="/etc/company.pem",
    )
    assert seen == {
        "UV_DEFAULT_INDEX": "https://mirror.example/simple",
        "UV_INSECURE_HOST": "mirror.example",
        "SSL_CERT_FILE": "/etc/company.pem",
        "VIRTUAL_ENV": str(environment),
    }


def test_the_configuration_of_pip_reaches_uv_and_its_environment_variables_beat_it(environment):
    config = (
        "[global]\nindex-url = https://global.example/simple\n[install]\nindex-url = https://install.example/simple\n"
    )
    assert seen_by_uv(environment, config)["UV_DEFAULT_INDEX"] == "https://install.example/simple"
    seen = seen_by_uv(environment, config, PIP_INDEX_URL="https://variable.example/simple")
    assert seen["UV_DEFAULT_INDEX"] == "https://variable.example/simple"


@pytest.mark.parametrize("name", ["UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_NO_INDEX"])
def test_an_index_that_uv_was_given_beats_pips(environment, name: str):
    seen = seen_by_uv(environment, PIP_INDEX_URL="https://mirror.example/simple", **{name: "own"})
    assert seen.get("UV_DEFAULT_INDEX") == ("own" if name == "UV_DEFAULT_INDEX" else None)


def test_certificates_that_are_set_stay(environment):
    seen = seen_by_uv(environment, PIP_CERT="/etc/company.pem", SSL_CERT_FILE="/etc/own.pem")
    assert seen["SSL_CERT_FILE"] == "/etc/own.pem"


def test_files_are_copied_without_a_warning_where_the_cache_cannot_be_linked(environment, tmp_path):
    assert "UV_LINK_MODE" not in seen_by_uv(environment)
    with_links = tmp_path / "ln"
    with_links.write_text("#!/bin/sh\nexit 1\n")  # as on another file system
    with_links.chmod(0o755)
    seen = seen_by_uv(environment, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert seen["UV_LINK_MODE"] == "copy"
    assert not list(tmp_path.rglob(".probe*"))
