"""Weights as timm fetches them: a small copy of its cache on disk, and what happens where there is none."""

import huggingface_hub.constants as hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from cbam_core.errors import WeightsUnavailable
from cbam_core.networks import build_network
from cbam_core.spec import ModelSpec


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no network."""
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    return tmp_path


def publish(cache, name: str) -> dict[str, torch.Tensor]:
    """Random weights of timm's network `name`, where timm looks for published ones."""
    repository = timm.get_pretrained_cfg(name).hf_hub_id
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("a" * 40)
    (folder / "snapshots" / ("a" * 40)).mkdir(parents=True)
    state = timm.create_model(name).state_dict()
    save_file(state, folder / "snapshots" / ("a" * 40) / "model.safetensors")
    return state


@pytest.mark.parametrize(("backbone", "name"), [("resnet18", "resnet18"), ("timm:regnetx_002", "regnetx_002")])
def test_pretrained_starts_from_what_timm_publishes(cache, backbone, name):
    published = publish(cache, name)
    spec = ModelSpec.model_validate({"backbone": backbone, "pretrained": True, "attention": {"type": "cbam"}})
    loaded = build_network(spec, 10).state_dict()
    taken = [key for key in published if key in loaded and torch.equal(published[key], loaded[key])]
    assert len(taken) == len(published) - 2  # all but the head, which has another width
    assert any(".attention." in key for key in loaded)


def test_weights_that_cannot_be_fetched(cache):
    spec = ModelSpec(backbone="resnet18", pretrained=True)
    with pytest.raises(WeightsUnavailable, match="resnet18"):
        build_network(spec, 10)
