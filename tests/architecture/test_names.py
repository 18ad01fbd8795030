"""One concept, one name: those that were given up do not come back, in code or on a page."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
GIVEN_UP = {
    "admitter": "scheduler",
    "complaints": "error_items",
    "courier": "webhook sender",
    "eraser": "file cleanup",
    "forget_peak_memory": "reset_peak_memory",
    "glance": "snapshot",
    "have_room": "fits",
    "ledger": "dispatcher store",
    "observatory": "cluster status writer",
    "previewer": "network profiler",
    "read_stored": "load_scheduling_spec",
    "runcloser": "RunFinalizer",
    "start_like_timm": "init_like_timm",
    "thestore": "StoreDep",
    "vigil": "liveness monitor",
    "without_secrets": "redact",
}
"""In small letters, with what is said instead."""
HISTORY = ("CHANGELOG.md", "docs/design/log.md", "service/database/migrations/", "tests/architecture/test_names.py")


def test_no_name_that_was_given_up_is_used():
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True)
    words = (rf"\b{name}\b" if "_" in name else rf"(?<![a-z]){name}s?(?![a-z])" for name in GIVEN_UP)
    word = re.compile(f"({'|'.join(words)})", re.IGNORECASE)
    found = {}
    for path in (path for path in listed.stdout.split() if not path.startswith(HISTORY)):
        for match in word.finditer((ROOT / path).read_text(encoding="utf-8")) if (ROOT / path).is_file() else ():
            found[path] = (
                f"{match[0]}: say {GIVEN_UP.get(match[0].lower().removesuffix('s')) or GIVEN_UP[match[0].lower()]}"
            )
    assert found == {}
