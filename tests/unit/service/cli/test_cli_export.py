"""`cbam export`, as a user calls it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cbam_core.attention import CBAM


def cbam(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from service.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "ours.safetensors"
    save_file(CBAM(32).state_dict(), path)
    return path


def test_weights_go_to_timm_and_back_without_a_changed_bit(weights: Path, tmp_path: Path):
    there = cbam("export", weights, tmp_path / "timm.pth", "--to", "timm")
    assert there.returncode == 0, there.stderr
    assert "layout of timm" in there.stdout
    timm = torch.load(tmp_path / "timm.pth", weights_only=True)
    assert timm["channel.fc1.weight"].ndim == 4, "timm's MLP is made of 1×1 convolutions"
    assert "spatial.conv.bn.weight" in timm
    words = ("--from", "timm", "--to", "ours", "--json")
    back = cbam("export", tmp_path / "timm.pth", tmp_path / "back.safetensors", *words)
    assert back.returncode == 0, back.stderr
    told = {"file": str(tmp_path / "back.safetensors"), "layout": "ours", "tensors": len(timm)}
    assert json.loads(back.stdout) == told
    before, after = load_file(weights), load_file(tmp_path / "back.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_is_no_weights_file_is_one_clear_line(weights: Path, tmp_path: Path):
    garbage = tmp_path / "garbage.pth"
    garbage.write_bytes(b"not weights")
    torch.save([1, 2], tmp_path / "list.pth")
    for path in (garbage, tmp_path / "list.pth", tmp_path / "absent.safetensors"):
        ran = cbam("export", path, tmp_path / "out.pth")
        assert ran.returncode == 1
        assert str(path) in ran.stderr
        assert "Traceback" not in ran.stderr


def test_weights_of_another_layout_name_the_first_key_that_does_not_fit(weights: Path, tmp_path: Path):
    ran = cbam("export", weights, tmp_path / "out.pth", "--from", "authors", "--to", "timm")
    assert ran.returncode == 1
    assert any(name in ran.stderr for name in load_file(weights))
