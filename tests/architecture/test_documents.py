"""What the documents say of the repository is so, and they say it alike on GitHub and on the site."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *PAGES]
MOST_LINES_OF_THE_README = 150
FENCE = re.compile(r"^(```|~~~).*?^\1$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ITEM_OR_ROW = re.compile(r"[-*] |\d+\. |\|")


def prose(document: Path) -> str:
    """The text without its blocks of code."""
    return FENCE.sub("", document.read_text(encoding="utf-8"))


def links(document: Path) -> Iterator[str]:
    """What the document links to in this repository, pictures included."""
    return (target for target in LINK.findall(prose(document)) if not re.match(r"\w+:", target))


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub gives to the headings."""
    headings = re.findall(r"^#+ +(.*?) *$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def pages_of(nav: object) -> Iterator[str]:
    """Every path in the `nav` of mkdocs.yml."""
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from pages_of(part)


def test_the_tree_is_the_real_one():
    ran = subprocess.run([sys.executable, ROOT / "scripts" / "tree", "--check"], check=False)
    assert ran.returncode == 0, "run scripts/tree"


def test_the_readme_is_read_in_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_THE_README


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path):
    broken = []
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_there_are_links_to_check():
    assert sum(len([*links(document)]) for document in DOCUMENTS) > 50


def test_every_page_is_in_the_navigation_of_the_site():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(pages_of(site["nav"])) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_list_or_table_stands_apart_from_the_text_before_it(page: Path):
    """GitHub needs no empty line there. MkDocs does, and makes it all one paragraph."""
    joined = [
        line
        for before, line in pairwise(prose(page).splitlines())
        if ITEM_OR_ROW.match(line)
        and before
        and not (ITEM_OR_ROW.match(before) or before.startswith(("#", "<!--", " ")))
    ]
    assert not joined


def test_the_citation_names_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (citation["title"], citation["version"]) == (project["name"], project["version"])
    assert citation["license"] == project["license"]
