"""Killed with SIGKILL at a random step and run again, a training gives the bits of the one that was never killed.

With augmentation, mixing, EMA and accumulation on. The seed of the kill points is printed; set CBAM_TEST_SEED to
repeat them.
"""

import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from workers.storage import ExperimentFolder

SPEC = """
name: killed
model: {{backbone: cifar_resnet20, attention: {{type: cbam}}}}
data: {{dataset: digits, image_size: 8, augment: {{crop_padding: 1, brightness: 0.2, mixup: 0.2, cutmix: 1.0}}}}
train: {{epochs: 4, global_batch_size: 256, deterministic: true, accumulate: 2, ema: {{decay: 0.9}}}}
resources: {{workers: {workers}}}
checkpoint: {{every_steps: 3}}
"""
STEPS = 20
MLFLOW_AWAY = "http://127.0.0.1:9"  # nobody listens there: every value that is logged stays in the journal


@pytest.fixture
def gang(tmp_path):
    """Start `python -m workers` on every rank; whatever is left of it is killed with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, workers: int) -> list[subprocess.Popen[bytes]]:
        spec = tmp_path / f"{workers}.yaml"
        spec.write_text(SPEC.format(workers=workers))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        ranks = []
        for rank in range(workers):
            environment = os.environ | {
                "RANK": str(rank),
                "WORLD_SIZE": str(workers),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
                "MLFLOW_TRACKING_URI": MLFLOW_AWAY,
                "CBAM_TRACKING_CLOSE_SECONDS": "0",
            }
            command = [sys.executable, "-m", "workers", str(spec), "--storage", str(tmp_path), "--id", name]
            ranks.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE))
        started.extend(ranks)
        return ranks

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


def logged(folder: ExperimentFolder) -> dict[tuple[str, int], float]:
    """Every value that went to MLflow, but those that measure time."""
    values = {}
    for line in folder.journal.read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        record = json.loads(line)
        for name, value in record.get("metrics", {}).items():
            if not name.startswith(("system/", "images_per_second", "data_wait_share")):
                assert (name, record["step"]) not in values, "every value is logged once"
                values[name, record["step"]] = value
    return values


def last_logged_step(folder: ExperimentFolder) -> int:
    return max((step for _, step in logged(folder)), default=0) if folder.journal.exists() else 0


def wait_until(condition, processes, seconds=180.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        ended = [process.communicate()[1] for process in processes if process.poll() is not None]
        assert not ended, ended
        time.sleep(0.005)


def finish(processes):
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.timeout(600)
def test_a_killed_training_ends_with_the_bits_of_one_that_never_was(gang, tmp_path, workers):
    seed = int(os.environ.get("CBAM_TEST_SEED", secrets.randbelow(10**6)))
    kill_steps = sorted(random.Random(seed).sample(range(1, STEPS), 2))
    print(f"CBAM_TEST_SEED={seed}: killed at steps {kill_steps}")
    unbroken, broken = ExperimentFolder(tmp_path, "unbroken"), ExperimentFolder(tmp_path, "broken")
    finish(gang("unbroken", workers))

    for kill_step in kill_steps:
        ranks = gang("broken", workers)
        wait_until(lambda step=kill_step: last_logged_step(broken) >= step, ranks)
        for process in ranks:
            process.send_signal(signal.SIGKILL)
            process.wait()
    finish(gang("broken", workers))

    ours, theirs = load_file(broken.weights), load_file(unbroken.weights)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert logged(broken) == logged(unbroken)
    assert max(step for _, step in logged(broken)) == STEPS


def test_sigterm_writes_a_checkpoint_and_says_run_me_again(gang, tmp_path):
    (process,) = gang("stopped", 1)
    folder = ExperimentFolder(tmp_path, "stopped")
    wait_until(lambda: last_logged_step(folder) >= 5, [process])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=240)
    assert process.returncode == 75
    step = json.loads(folder.attempt(1).result.read_text())["step"]
    assert (folder.checkpoints / f"step-{step}" / "manifest.json").exists()


def test_a_broken_spec_is_told_with_its_pointer(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.format(workers=1).replace("image_size: 8", "image_size: 4, colour: red"))
    command = [sys.executable, "-m", "workers", str(spec)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "/data/image_size: " in answer.stderr
    assert "/data/colour: " in answer.stderr
    assert "Traceback" not in answer.stderr
