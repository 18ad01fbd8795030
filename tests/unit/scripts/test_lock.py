"""requirements.lock holds everything that pyproject.toml asks for, each with its hashes, and no place of its origin."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[3]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PIN = re.compile(
    r"(?P<name>[a-z0-9-]+)(\[[a-z,]+\])?==(?P<version>[^\s;]+)(?P<marker> ; [^\\]+)?"
    r"(?P<hashes>( \\\n    --hash=sha256:[0-9a-f]{64})+)\n"
)
COMMENTS = re.compile(r"(#.*\n)*")
PINS = {match["name"]: match for match in PIN.finditer(LOCK)}
SUPPORTED = [
    {
        "python_version": version,
        "python_full_version": f"{version}.4",
        "sys_platform": system,
        "platform_machine": machine,
    }
    for version in ("3.11", "3.12", "3.13")
    for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
]


def asked_for() -> dict[str, str]:
    """Where each requirement of the project, of its extras and of its dependency groups stands."""
    tables = {"project": PROJECT["project"]["dependencies"]}
    tables |= {f"extra {name}": table for name, table in PROJECT["project"]["optional-dependencies"].items()}
    tables |= {f"group {name}": table for name, table in PROJECT["dependency-groups"].items()}
    return {text: where for where, table in tables.items() for text in table if isinstance(text, str)}


def test_it_holds_nothing_but_pins_with_their_hashes():
    assert COMMENTS.fullmatch(PIN.sub("", LOCK)), "something else: an address, a path, a pin without hashes"
    assert len(PINS) == len(PIN.findall(LOCK)), "a package is there twice"
    assert len(PINS) > 150


@pytest.mark.parametrize("text", asked_for())
def test_what_is_asked_for_is_locked(text: str):
    requirement = Requirement(text)
    if canonicalize_name(requirement.name) == PROJECT["project"]["name"]:
        assert requirement.extras <= PROJECT["project"]["optional-dependencies"].keys()
        return
    pin = PINS[canonicalize_name(requirement.name)]
    assert requirement.specifier.contains(pin["version"], prereleases=True), f"run scripts/lock: {pin['version']}"


@pytest.mark.parametrize("name", ["torch", "torchvision", "ray", "mlflow", "fastapi", "onnxruntime", "uv"])
def test_it_holds_for_every_supported_python_and_platform(name: str):
    marker = PINS[name]["marker"]
    assert marker is None or all(Marker(marker[3:]).evaluate(place) for place in SUPPORTED)


def test_torch_stays_below_the_version_that_was_not_tried():
    (torch,) = [Requirement(text) for text in asked_for() if Requirement(text).name == "torch"]
    assert torch.specifier == SpecifierSet(">=2.11,<2.15")


def test_the_image_and_the_developers_have_the_same_extras():
    """Both install `all`, and it leaves none out."""
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = [Requirement(text) for text in extras["all"]]
    assert everything.extras == extras.keys() - {"all"}
    for script in ("scripts/setup", "docker/Dockerfile"):
        assert "--extra all" in (ROOT / script).read_text(encoding="utf-8")
