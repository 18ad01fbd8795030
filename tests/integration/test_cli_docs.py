"""Every example of docs/cli.md, comparisons.md, sweeps.md, quickstart.md and operations.md, as it stands there.

Against a live API and a dispatcher with a fake cluster; those that need the local stack, or train, are marked `stack`.
A line that is one `cbam` command runs in this process, which has loaded it; a line that needs a shell runs in one.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from service.cli.main import main
from service.cluster.base import Node
from service.domain.states import TERMINAL, State
from tests.support.live_service import live_service
from tests.support.ports import free_port
from tests.support.studies.comparing import leave_predictions
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder

ROOT = Path(__file__).parents[2]
SHELL = re.compile(r"[|&;<>$*?`]")  # what a shell does more with than to split the line into words
BLOCK = re.compile(r"^```console(?P<kind>[ \w]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ("cli", "quickstart", "operations")
NEEDS = {  # what a user sees before asking for it
    "pause": {State.RUNNING},
    "resume": {State.PAUSED},
    "retry": {State.CANCELLED, State.FAILED},
    "delete": TERMINAL,
    "cancel": {State.RUNNING},
    "clone": TERMINAL,
}


def examples(kind, page="cli"):
    """The commands of all blocks of a kind on a page, without their comments."""
    text = (ROOT / "docs" / f"{page}.md").read_text()
    blocks = [match["body"] for match in BLOCK.finditer(text) if match["kind"].strip() == kind]
    return [re.sub(r"\s{2,}#.*", "", line.removeprefix("$ ")) for block in blocks for line in block.splitlines()]


def _is_in(store, experiment_id, states):
    return store.get(experiment_id).state in states


def leave_files(settings, experiment_id):
    """What workers leave; those of the fake cluster train nothing."""
    folder = ExperimentFolder(settings.storage_root, experiment_id)
    for path, content in ((folder.weights, b"weights"), (folder.attempt(1).log(0), b"line\n")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def run(command, folder, **environment):
    """In a shell, as a user's; gives its exit code and output."""
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=folder,
        env=os.environ | {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def run_quickly(monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """The same for a line that needs no shell, in this process: forty starts of Python take a minute."""

    def run_here(command, folder, **environment):
        words = shlex.split(command)
        if SHELL.search(command) or words[0] != "cbam":
            return run(command, folder, **environment)
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", words)
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as leaving:
                main()
        return leaving.value.code or 0, *capfd.readouterr()

    return run_here


@pytest.fixture
def folder(tmp_path):
    """A folder as the user's, with the examples in it."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


def test_there_is_something_to_try():
    verbs = {word for command in examples("") for word in re.findall(r"cbam ([a-z]+)", command)}
    assert len(examples("")) > 25
    assert all(examples("", page) and examples("stack", page) for page in PAGES)
    assert {"submit", "list", "show", "watch", "wait", "logs", "pause", "resume", "retry", "clone", "delete"} <= verbs


def test_every_verb_is_on_the_page():
    from typer.main import get_command

    from service.cli.main import app

    text = (ROOT / "docs" / "cli.md").read_text()
    assert [verb for verb in get_command(app).commands if f"cbam {verb}" not in text] == []


@pytest.mark.parametrize("page", [*PAGES, "comparisons", "sweeps"])
def test_the_examples_work_in_their_order(settings, folder, page, run_quickly):
    with live_service(settings) as live:
        live.cluster.steps_per_look = 10  # an epoch, so that nobody waits for a long training that computes nothing
        live.cluster.nodes = (Node("node-1", 32.0, 0.0, 32.0, 0.0),)  # room for a whole comparison
        live.cluster.export = leave_predictions
        environment = {
            "CBAM_URL": live.url,
            "CBAM_HOME": str(settings.home),
            "CBAM_DATABASE_URL": settings.database_url,
        }
        current = ""
        for command in examples("", page):
            verb = command.split()[1]
            if "ID" in command.split() and verb in NEEDS:
                wanted = NEEDS[verb]
                wait_until(partial(_is_in, live.store, current, wanted), f"what {command} needs")
            if verb == "files":
                leave_files(settings, current)
            code, out, err = run_quickly(re.sub(r"\bID\b", current, command), folder, **environment)
            assert code == 0, f"{command}\n{out}\n{err}"
            if verb in ("submit", "clone") and "=$(" not in command:
                current = out.split()[0]
            if verb == "token" and "create" in command:
                environment["CBAM_TOKEN"] = out.strip()
        if page == "cli":
            assert (folder / "weights/export/model.safetensors").read_bytes() == b"weights"
            assert (folder / "result.json").read_text().strip().startswith("[")
            assert "<svg" in (folder / "figure.svg").read_text()


@pytest.mark.slow
@pytest.mark.stack
@pytest.mark.timeout(900)
def test_the_examples_of_the_local_stack_work(tmp_path, folder):
    """One page after another on the same home; each leaves the stack as the next one needs it."""
    home = {"CBAM_HOME": str(tmp_path / "home"), "CBAM_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    try:
        for command in (command for page in PAGES for command in examples("stack", page)):
            code, out, err = run(command, folder, **home)
            assert code == 0, f"{command}\n{out}\n{err}"
    finally:
        run("cbam down", folder, **home)


@pytest.mark.slow
@pytest.mark.stack
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", ["cli", "quickstart"])
def test_the_examples_without_a_server_work(folder, page):
    for command in examples("training", page):
        code, out, err = run(command, folder, OMP_NUM_THREADS="1")
        assert code == 0, f"{command}\n{out}\n{err}"
