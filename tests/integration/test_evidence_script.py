"""`scripts/evidence` on the real parts, the quick way: eight trainings through a stack of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]


def test_one_epoch_of_two_seeds_gives_the_page_and_leaves_nothing(tmp_path):
    environment = os.environ | {"PYTHON": sys.executable, "TMPDIR": str(tmp_path)}
    command = [ROOT / "scripts" / "evidence", "--quick"]
    ran = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=880)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-5000:]
    assert "8 of 8 runs are in" in ran.stdout
    assert "test/top1 on 1,000 images, 2 paired seeds" in ran.stdout
    assert all(f"| {name} | 2 |" in ran.stdout for name in ("none (control)", "se", "eca", "cbam"))
    assert "images/evidence-attention.png" in ran.stdout
    assert not list(tmp_path.glob("tmp.*")), "the stack's home and the files are gone"
