"""docs/design/dependencies.md names every package that is declared, and only files that there are."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "design" / "dependencies.md").read_text(encoding="utf-8")
DECLARED = PAGE[PAGE.index("## What is declared") :]
GONE = {"service/sse.py", "service/request_traces.py", "service/cli/completion.py"}
BY_THEIR_FILES = {"cbam-lab"}


def declared() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    groups = [
        *project["project"].get("optional-dependencies", {}).values(),
        *project.get("dependency-groups", {}).values(),
    ]
    wanted = [*project["project"]["dependencies"], *(one for group in groups for one in group if isinstance(one, str))]
    names = {re.split(r"[\[<>=!~; ]", one)[0].lower() for one in wanted}
    return sorted(names - BY_THEIR_FILES)


@pytest.mark.parametrize("package", declared())
def test_every_declared_package_is_there_with_what_it_is_for(package):
    first_cells = [line.split("|")[1] for line in DECLARED.splitlines() if line.startswith("| ")]
    assert any(re.search(rf"(?<![\w-]){re.escape(package)}(?![\w-])", cell) for cell in first_cells)


def test_every_file_on_the_page_exists():
    paths = set(re.findall(r"`((?:service|workers|cbam_core|tests|benchmarks)/[\w/.*]+)`", PAGE))
    assert len(paths) > 40
    assert {path for path in paths if not list(ROOT.glob(path.rstrip("/")))} == GONE
