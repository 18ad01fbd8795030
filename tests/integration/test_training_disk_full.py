"""The disk fills up while a training writes a checkpoint: it says so; and once there is room, it goes on unharmed."""

import json
import signal
import subprocess

import pytest
import yaml

from tests.support.journals import MLFLOW_AWAY, logged
from tests.support.small_disk import kept_full, small_disk
from tests.support.specs import spec_dict
from tests.support.waiting import wait_until
from workers.protocol.storage import ExperimentFolder

ROOM = "64m"  # a checkpoint of the small network has more than 2 MB
EPOCHS = 3


def is_torn(step_folder) -> bool:
    return not (step_folder / "manifest.json").exists()


def freeze_in_a_write(process: subprocess.Popen, folder: ExperimentFolder) -> bool:
    """Stop the training; whether that was while it wrote a checkpoint, and not its first one."""
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGSTOP)
    found = list(folder.checkpoints.glob("step-*"))
    if len(found) > 1 and any(map(is_torn, found)):
        return True
    process.send_signal(signal.SIGCONT)
    return False


@pytest.mark.timeout(300)
def test_a_disk_that_fills_up_in_a_write_costs_that_checkpoint_and_nothing_else(ranks, tmp_path):
    train = {"epochs": EPOCHS, "global_batch_size": 128, "optimizer": {"type": "sgd", "lr": 0.05}}
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(spec_dict(train=train, checkpoint={"every_steps": 1})))
    command = ["-m", "workers", str(spec), "--storage", str(tmp_path / "disk"), "--id", "full"]
    variables = {"MLFLOW_TRACKING_URI": MLFLOW_AWAY, "CBAM_TRACKING_CLOSE_SECONDS": "0"}
    folder = ExperimentFolder(tmp_path / "disk", "full")
    with small_disk(tmp_path / "disk", ROOM):
        (process,) = ranks.start(command, 1, fresh=True, **variables)
        wait_until(lambda: freeze_in_a_write(process, folder), "a checkpoint that is being written", seconds=120)
        whole = max(int(one.name[5:]) for one in folder.checkpoints.glob("step-*") if not is_torn(one))
        with kept_full(tmp_path / "disk"):
            process.send_signal(signal.SIGCONT)
            _, errors = process.communicate(timeout=120)
        assert process.returncode == 1, errors
        assert "CHECKPOINT_ERROR" in errors
        assert "No space left on device" in errors
        assert not any(map(is_torn, folder.checkpoints.glob("step-*")))

        (process,) = ranks.start(command, 1, fresh=True, **variables)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        result = json.loads(folder.attempt(folder.last_attempt()).result.read_text())
        assert result["outcome"] == "succeeded"
        assert result["summary"]["resumed_from_step"] >= whole
        steps = range(1, result["step"] + 1)
        assert {step for _, step in logged(folder)} == set(steps)
