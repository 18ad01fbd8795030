"""A process of its own in which nothing can be imported but the base packages of cbam-lab and those of some extras."""

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HIDE = """
import json, os, sys
from importlib.machinery import PathFinder

class OthersFinder:
    hidden = set(json.loads(os.environ["HIDDEN"]))
    invalidate_caches = PathFinder.invalidate_caches
    find_distributions = PathFinder.find_distributions

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = PathFinder.find_spec(name, path, target)
        is_hidden = name.partition(".")[0] in cls.hidden
        is_rays_own_copy = "thirdparty_files" in str(found and found.origin)
        return None if is_hidden and not is_rays_own_copy else found

sys.meta_path[sys.meta_path.index(PathFinder)] = OthersFinder
"""


def run_with_extras(*extras: str, code: str, words: tuple[object, ...] = (), **environment: str):
    """Run Python code with these arguments and variables; what became of it, and what it printed."""
    return subprocess.run(
        [sys.executable, "-c", HIDE + code, *map(str, words)],
        env=os.environ | {"HIDDEN": json.dumps(hidden_modules(*extras))} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def hidden_modules(*extras: str) -> list[str]:
    """Every installed module that neither the base, nor these extras, nor this project bring."""
    kept = _distributions(extras) | {PROJECT["name"]}
    owners = packages_distributions()
    return [name for name, held_by in owners.items() if not kept & {canonicalize_name(owner) for owner in held_by}]


def _distributions(extras: tuple[str, ...]) -> set[str]:
    """What a plain installation with these extras holds."""
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    wanted = [Requirement(text) for text in texts]
    found: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        name = canonicalize_name(requirement.name)
        if name not in found and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
            wanted += [Requirement(text) for text in distribution(name).requires or ()]
    return found
