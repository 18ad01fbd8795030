"""What the README says of the files is so."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tree_is_the_real_one():
    ran = subprocess.run([sys.executable, ROOT / "scripts" / "tree", "--check"], check=False)
    assert ran.returncode == 0, "run scripts/tree"


def test_every_link_in_the_documents_leads_somewhere():
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
        if "://" not in target and not (document.parent / target).exists()
    ]
    assert not broken
