"""The blocks of docs/client.md, and the README's request and Python, as they stand there."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

from cbam_core.spec import ExperimentSpec
from tests.support.live_service import live_service
from workers.protocol.storage import ExperimentFolder
from workers.tracking.journal import Journal

ROOT = Path(__file__).parents[2]


@pytest.fixture
def live(settings):
    with live_service(settings) as live:
        yield live


def test_the_blocks_of_the_client_page_work_in_their_order(live, settings, monkeypatch, capsys):
    monkeypatch.setenv("CBAM_URL", live.url)
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "client.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) > 4
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "docs/client.md", "exec"), names)
        if "experiment" in names and "journal" not in names:  # the fake cluster measures nothing
            folder = ExperimentFolder(settings.storage_root, names["experiment"].id)
            names["journal"] = journal = Journal(folder.journal)
            journal.append_metrics(5, {"val/top1": 0.5}, 1000)
            journal.close()
    names["client"].close()
    out = capsys.readouterr().out
    assert "SUCCEEDED 0.5" in out
    assert "[(5, 0.5)]" in out


def test_the_request_of_the_readme_is_accepted(live):
    (command,) = re.findall(r"^curl -i .*?^}'$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    here = command.replace("http://127.0.0.1:8000", live.url).replace("curl -i", "curl -s")
    done = subprocess.run(["bash", "-c", here], capture_output=True, text=True, timeout=60, check=True)
    ExperimentSpec.model_validate(json.loads(done.stdout)["spec"])


def test_the_python_of_the_readme_works():
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    image = torch.zeros(1, 3, 64, 64)
    assert names["refine"](torch.zeros(1, 256, 4, 4)).shape == (1, 256, 4, 4)
    assert names["network"].eval()(image).shape == (1, 10)
