"""`python -m workers` from the export of another training, on one rank and on two."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.support.journals import MLFLOW_AWAY
from workers.protocol.storage import ExperimentFolder

SPEC = """
name: started
model: {{backbone: cifar_resnet20, attention: {{type: cbam}}{model}}}
data: {{dataset: digits, image_size: 8}}
train: {{epochs: {epochs}, global_batch_size: 252, deterministic: true, precision: fp32{train}}}
resources: {{workers: {workers}}}
"""
STARTED = {
    "model": ", weights: first, freeze: [conv1, layer1]",
    "train": ", layer_decay: 0.7, attention_lr_scale: 2.0, optimizer: {type: sgd, lr: 0.02, nesterov: true}",
}


@pytest.fixture
def trained(ranks, tmp_path):
    """Run `python -m workers` on every rank to its end; gives the experiment's files."""

    def run(name, workers=1, epochs=1, **parts):
        spec = tmp_path / f"{name}.yaml"
        spec.write_text(SPEC.format(workers=workers, epochs=epochs, **{"model": "", "train": ""} | parts))
        command = ["-m", "workers", str(spec), "--storage", str(tmp_path), "--id", name]
        away = {"MLFLOW_TRACKING_URI": MLFLOW_AWAY, "CBAM_TRACKING_CLOSE_SECONDS": "0"}
        for process in ranks.start(command, workers, **away):
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
        return ExperimentFolder(tmp_path, name)

    return run


def test_two_ranks_start_from_the_same_weights_and_learn_what_one_learns(trained):
    first = load_file(trained("first").weights)
    one, two = (trained(f"of-{workers}", workers, 1, **STARTED) for workers in (1, 2))
    alone, together = load_file(one.weights), load_file(two.weights)
    learnt = {name for name in alone if not torch.equal(alone[name], first[name])}
    assert not {name for name in learnt if name.startswith(("conv1.", "layer1."))}
    assert {"fc.weight", "layer2.0.conv1.weight", "layer3.2.attention.spatial.conv.weight"} <= learnt
    weights = [name for name in alone if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    for name in weights:  # batch statistics are of each rank's half, so the two are near each other, not the same
        assert torch.allclose(alone[name], together[name], atol=0.05), name
    assert json.loads(one.initial_weights.read_text()) == json.loads(two.initial_weights.read_text())
