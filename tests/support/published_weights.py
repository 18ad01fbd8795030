"""Weights as timm fetches them: a small copy of its cache on disk, and no network."""

from pathlib import Path

import huggingface_hub.constants as hub
import pytest
import timm
from safetensors.torch import save_file
from torch import Tensor


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let timm look into `folder`, and nowhere else."""
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    return folder


def publish(cache: Path, name: str) -> dict[str, Tensor]:
    """Random weights of timm's network `name`, where timm looks for published ones."""
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    state: dict[str, Tensor] = timm.create_model(name).state_dict()
    save_file(state, folder / "snapshots" / ("a" * 40) / "model.safetensors")
    return state
