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
    "RunCloser": "RunFinalizer",
    "start_like_timm": "init_like_timm",
    "TheStore": "StoreDep",
    "vigil": "liveness monitor",
    "without_secrets": "redact",
}
"""With what is said instead."""
HISTORY = ("CHANGELOG.md", "docs/design/log.md", "service/database/migrations/", "tests/architecture/test_names.py")


PAGES = ("*.py", "*.md", "*.yml", "*.yaml", "docker/*", "scripts/*")


def given_up(text: str) -> list[str]:
    """Those that are in a text: a word also within CamelCase and snake_case, anything longer as it was written."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).replace("_", " ").lower()
    plain = [name for name in GIVEN_UP if name.islower() and "_" not in name]
    found = re.findall(rf"(?<![a-z])({'|'.join(plain)})s?(?![a-z])", apart)
    return found + re.findall(rf"\b({'|'.join(GIVEN_UP.keys() - {*plain})})\b", text)


def test_no_name_that_was_given_up_is_used():
    listed = subprocess.run(["git", "ls-files", *PAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    paths = [ROOT / path for path in listed.stdout.split() if not path.startswith(HISTORY)]
    found = {str(path): given_up(path.read_text(encoding="utf-8")) for path in paths if path.is_file()}
    assert {path: [f"{name}: say {GIVEN_UP[name]}" for name in names] for path, names in found.items() if names} == {}


def test_a_name_is_seen_in_every_writing():
    assert given_up("LedgerStore, webhook_couriers, a vigil") == ["ledger", "courier", "vigil"]
    assert given_up("def have_room(): RunCloser()") == ["have_room", "RunCloser"]
    assert given_up("gangs have room; without secrets") == []
