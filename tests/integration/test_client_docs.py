"""The blocks of docs/client.md, and the README's request and Python, as they stand there."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

from cbam_core.networks import build_network
from cbam_core.normalisation import Normalisation
from cbam_core.spec import ExperimentSpec
from service.cluster.base import Node
from tests.support.live_service import live_service
from tests.support.studies.comparing import leave_predictions
from workers.export.weights import Trained, export
from workers.protocol.storage import ExperimentFolder
from workers.tracking.journal import Journal

ROOT = Path(__file__).parents[2]


@pytest.fixture
def live(settings):
    with live_service(settings) as live:
        live.cluster.nodes = (Node("node-1", 32.0, 0.0, 32.0, 0.0),)  # room for a whole comparison
        live.cluster.export = leave_predictions
        yield live


def leave_weights(folder, spec):
    """What a training exports; the fake cluster trains nothing."""
    network = build_network(spec.model, 3, 1)
    trained = Trained(
        network=network.eval(),
        spec=spec,
        classes=("zero", "one", "two"),
        input_shape=(1, 16, 16),
        normalisation=Normalisation(mean=(0.5,), std=(0.5,)),
        device=torch.device("cpu"),
        semantics=2,
        confusions={},
        predictions=(),
    )
    folder.path.mkdir(parents=True, exist_ok=True)
    export(trained, folder)


def test_the_blocks_of_the_client_page_work_in_their_order(live, settings, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("CBAM_URL", live.url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
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
            leave_weights(folder, ExperimentSpec.model_validate(names["experiment"].view.spec))
    names["client"].close()
    out = capsys.readouterr().out
    assert "SUCCEEDED 0.5" in out
    assert "[(5, 0.5)]" in out
    assert "cbam plain 0.2" in out  # the difference, then its verdict
    assert "export/model.safetensors weights " in out
    assert {"zero", "one", "two"} & set(out.split())


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
