"""Killed with SIGKILL at a random step and run again, a training gives the bits of the one that was never killed.

With augmentation, mixing, EMA and accumulation on. The seed of the kill points is printed; set CBAM_TEST_SEED to
repeat them.
"""

import json
import os
import random
import secrets
import signal
import subprocess
import sys
from functools import partial

import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests.support.journals import MLFLOW_AWAY, logged
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder

SPEC = """
name: killed
model: {{backbone: cifar_resnet20, attention: {{type: cbam}}}}
data:
  dataset: digits
  image_size: 8
  workers_per_rank: {loaders}
  augment: {{crop_padding: 1, brightness: 0.2, mixup: 0.2, cutmix: 1.0}}
train: {{epochs: 4, global_batch_size: 252, deterministic: true, accumulate: {accumulate}, ema: {{decay: 0.9}}}}
resources: {{workers: {workers}}}
checkpoint: {{every_steps: 3}}
"""
STEPS = 20
slow = partial(pytest.param, marks=pytest.mark.slow)
SELDOM = """
import sys
from workers.train import trainer
trainer.CURVE_POINTS = 5  # a value for four steps, as a long training logs it: a checkpoint is between two
from workers.__main__ import main
sys.exit(main())
"""


@pytest.fixture
def gang(ranks, tmp_path):
    """Start `python -m workers` on every rank."""

    def start(name, workers=1, accumulate=2, loaders=0, logs="always", fresh=False):
        spec = tmp_path / "spec.yaml"
        spec.write_text(SPEC.format(workers=workers, accumulate=accumulate, loaders=loaders))
        program = ["-m", "workers"] if logs == "always" else ["-c", SELDOM]
        command = [*program, str(spec), "--storage", str(tmp_path), "--id", name]
        away = {"MLFLOW_TRACKING_URI": MLFLOW_AWAY, "CBAM_TRACKING_CLOSE_SECONDS": "0"}
        return ranks.start(command, workers, fresh=fresh, **away)

    return start


def last_logged_step(folder: ExperimentFolder) -> int:
    return max((step for _, step in logged(folder)), default=0) if folder.journal.exists() else 0


def wait_for_step(folder, step, processes):
    def reached():
        ended = [process.communicate()[1] for process in processes if process.poll() is not None]
        assert not ended, ended
        return last_logged_step(folder) >= step

    wait_until(reached, f"step {step}", seconds=180)


def finish(processes):
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors


@pytest.mark.parametrize(
    "how",
    [
        {"workers": 1},
        {"workers": 2},
        slow({"workers": 2, "accumulate": 1}),  # DDP then takes the graph for static
        slow({"workers": 3, "accumulate": 1}),  # a sum of more than two: its order matters
        slow({"workers": 1, "loaders": 2}),
        slow({"workers": 2, "logs": "seldom"}),
    ],
    ids=lambda how: "-".join(f"{name}-{value}" for name, value in how.items()),
)
@pytest.mark.timeout(900)
def test_a_killed_training_ends_with_the_bits_of_one_that_never_was(gang, tmp_path, how):
    seed = int(os.environ.get("CBAM_TEST_SEED", secrets.randbelow(10**6)))
    kill_steps = sorted(random.Random(seed).sample(range(1, STEPS - 4 if "logs" in how else STEPS), 2))
    print(f"CBAM_TEST_SEED={seed}: killed at steps {kill_steps}")
    unbroken, broken = ExperimentFolder(tmp_path, "unbroken"), ExperimentFolder(tmp_path, "broken")
    finish(gang("unbroken", **how))

    for kill_step in kill_steps:
        ranks = gang("broken", **how)
        wait_for_step(broken, kill_step, ranks)
        helpers = [child for process in ranks for child in psutil.Process(process.pid).children(recursive=True)]
        for process in ranks:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert not psutil.wait_procs(helpers, timeout=20)[1], "they end with their rank"
    finish(gang("broken", **how))

    ours, theirs = load_file(broken.weights), load_file(unbroken.weights)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert logged(broken) == logged(unbroken)
    assert max(step for _, step in logged(broken)) == STEPS


@pytest.mark.parametrize("loaders", [0, slow(1)])
def test_sigterm_to_all_processes_writes_a_checkpoint_and_says_run_me_again(gang, tmp_path, loaders):
    (process,) = gang("stopped", loaders=loaders, fresh=True)
    folder = ExperimentFolder(tmp_path, "stopped")
    wait_for_step(folder, 5, [process])
    for one in [*psutil.Process(process.pid).children(recursive=True), process]:
        one.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 75, errors
    step = json.loads(folder.attempt(1).result.read_text())["step"]
    assert (folder.checkpoints / f"step-{step}" / "manifest.json").exists()


@pytest.mark.slow
def test_torchrun_trains_two_ranks(tmp_path):
    """Here torchrun holds the store in which the ranks meet."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(workers=2, accumulate=2, loaders=0))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "-m", "workers", str(spec), "--storage", str(tmp_path), "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240, env=environment)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["step"] == STEPS


def test_a_broken_spec_is_told_with_its_pointer(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        SPEC.format(workers=1, accumulate=1, loaders=0).replace("image_size: 8", "image_size: 4\n  colour: red")
    )
    command = [sys.executable, "-m", "workers", str(spec)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "/data/image_size: " in answer.stderr
    assert "/data/colour: " in answer.stderr
    assert "Traceback" not in answer.stderr
