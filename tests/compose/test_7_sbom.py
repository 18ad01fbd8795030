"""What the image says of its own contents: a bill of materials that is true."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.compose.containers import ComposeCluster

LOCK = (Path(__file__).parents[2] / "requirements.lock").read_text(encoding="utf-8")


def normalise(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def bom(cluster: ComposeCluster) -> dict[str, Any]:
    return json.loads(cluster.script("sbom"))


@pytest.fixture(scope="module")
def components(bom: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {normalise(component["name"]): component for component in bom["components"]}


def test_it_is_cyclonedx_of_this_project(bom: dict[str, Any]):
    assert bom["bomFormat"] == "CycloneDX"
    assert bom["metadata"]["component"]["name"] == "cbam-lab"
    (root,) = [item for item in bom["dependencies"] if item["ref"] == bom["metadata"]["component"]["bom-ref"]]
    assert any(name.startswith("torch==") for name in root["dependsOn"])


@pytest.mark.parametrize("name", ["torch", "ray"])
def test_it_names_what_is_locked(components: dict[str, dict[str, Any]], name: str):
    (version,) = re.findall(rf"^{name}==(\S+)", LOCK, re.MULTILINE)
    assert components[name]["version"] == version
    assert components[name]["purl"] == f"pkg:pypi/{name}@{version}"
    assert components[name]["licenses"]
    (archives,) = [item for item in components[name]["externalReferences"] if item.get("hashes")]
    assert {item["content"] for item in archives["hashes"]} <= set(re.findall(r"sha256:([0-9a-f]{64})", LOCK))


def test_it_names_all_that_is_installed_and_the_tools_of_the_build_are_not(
    cluster: ComposeCluster, components: dict[str, dict[str, Any]]
):
    installed = json.loads(cluster.execute("api", "pip", "list", "--format=json"))
    versions = {normalise(item["name"]): item["version"] for item in installed if item["name"] != "cbam-lab"}
    assert versions == {name: component["version"] for name, component in components.items()}
    assert not {"uv", "cyclonedx-bom"} & versions.keys()
