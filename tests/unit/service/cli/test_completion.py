"""Typer's own completion, in a real bash."""

import os
import shutil
import subprocess
import sys

import pytest

COMMAND = """#!{python}
import sys
from service.cli.main import main
sys.argv[0] = "cbam"
main()
"""
EXPECTED = {
    "re": {"resume", "retry", "restore"},
    "list --sta": {"--state"},
    "list --state PAU": {"PAUSING", "PAUSED"},
}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("script", ["cbam --show-completion", "_CBAM_COMPLETE=source_bash cbam"])
@pytest.mark.parametrize("words", EXPECTED)
def test_bash_completes_verbs_options_and_states(tmp_path, script, words):
    (tmp_path / "cbam").write_text(COMMAND.format(python=sys.executable))
    (tmp_path / "cbam").chmod(0o755)
    steps = (
        f'eval "$({script})"',
        f"COMP_WORDS=(cbam {words})",
        "COMP_CWORD=$((${#COMP_WORDS[@]} - 1))",
        "_cbam_completion cbam",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    )
    paths = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        ["bash", "-c", "\n".join(steps)], env=os.environ | paths, capture_output=True, text=True, timeout=60, check=True
    )
    assert set(done.stdout.split()) == EXPECTED[words]
