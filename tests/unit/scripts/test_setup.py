"""scripts/setup touches no environment but its own."""

import shutil
import subprocess
from pathlib import Path

SETUP = Path(__file__).parents[3] / "scripts" / "setup"


def test_an_environment_that_another_checkout_lends_is_left_alone(tmp_path):
    """It would be emptied: the stamp in it names the folder that it was made for."""
    theirs, mine = tmp_path / "theirs" / ".venv", tmp_path / "mine"
    (theirs / "bin").mkdir(parents=True)
    (theirs / "bin" / "python").touch()
    (mine / "scripts").mkdir(parents=True)
    shutil.copy(SETUP, mine / "scripts" / "setup")
    (mine / ".venv").symlink_to(theirs)
    done = subprocess.run([mine / "scripts" / "setup"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f".venv is a link to {theirs}; remove the link" in done.stderr
    assert (theirs / "bin" / "python").exists()
