"""What can be said of the containers without an engine: secrets, addresses; every setting is explained."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
FURTHER = "".join((ROOT / "docker" / name).read_text() for name in ("worker.yml", "machines.yml"))
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
EXAMPLE = dict(
    line.lstrip("#").split("=", 1)
    for line in (ROOT / ".env.example").read_text().splitlines()
    if re.match(r"#?[A-Z_0-9]+=", line)
)
SECRETS = ("POSTGRES_PASSWORD", "CBAM_DATABASE_PASSWORD", "MLFLOW_DATABASE_PASSWORD", "RAY_AUTH_TOKEN")
SCRIPTS = ("scripts/compose", "scripts/test-compose", "docker/install", "docker/part", "docker/databases.sh")


def test_every_variable_is_explained_in_the_example():
    used = set(re.findall(r"\$\{([A-Z_0-9]+)", COMPOSE + FURTHER)) - {"GIT_COMMIT"}
    passed = {
        name for service in SERVICES.values() for name, value in service.get("environment", {}).items() if not value
    }
    assert used | passed <= EXAMPLE.keys()


def test_every_variable_of_the_example_is_used():
    elsewhere = COMPOSE + FURTHER + (ROOT / "scripts/compose").read_text()
    assert [name for name in EXAMPLE if name not in elsewhere and not name.startswith("COMPOSE_")] == []


@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_has_a_known_value(name: str):
    assert EXAMPLE[name] == ""
    assert not re.search(rf"\$\{{{name}:-", COMPOSE), "there is a default"
    assert re.search(rf"\$\{{{name}:\?", COMPOSE), "it may be left out"


def test_what_is_published_is_on_loopback():
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"api", "mlflow"}
    assert all(
        port.startswith(("127.0.0.1:", "${CBAM_BIND:-127.0.0.1}:")) for ports in published.values() for port in ports
    )


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_comes_back_is_bounded_and_rotates_its_log(name: str):
    service = SERVICES[name]
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    assert service["init"] is True
    assert "mem_limit" in service
    assert service["logging"]["options"]["max-size"]


def test_a_worker_of_a_further_machine_is_as_one_of_the_first():
    there = yaml.safe_load((ROOT / "docker/worker.yml").read_text())["services"]
    for name, service in there.items():
        here = SERVICES[name]
        assert service["environment"] == here["environment"] | {
            "RAY_AUTH_TOKEN": "${RAY_AUTH_TOKEN:?copy .env from the first machine}"
        }
        for key in service.keys() - {"environment", "volumes"}:
            assert service[key] == here[key], f"{name}: {key}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_bash(script: str):
    assert subprocess.run(["bash", "-n", script], cwd=ROOT, check=False).returncode == 0
