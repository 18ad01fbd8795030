"""`cbam preview` and `cbam show` say which weights a training starts from, and what of it learns."""

import pytest
import torch
import yaml

from cbam_core.networks import build_network
from cbam_core.spec import ModelSpec
from service.api.app import create_app
from tests.support.live_server import serving
from tests.support.specs import spec_dict

MODEL = {"backbone": "cifar_resnet20", "attention": {"type": "cbam"}}


@pytest.fixture
def spec_file(settings, monkeypatch, tmp_path):
    """A spec that starts from a plain network's weights, and a server."""
    settings.data_roots[0].mkdir(parents=True)
    path = settings.data_roots[0] / "w.pth"
    torch.save(build_network(ModelSpec.model_validate(MODEL | {"attention": "none"}), 10, 1).state_dict(), path)
    spec = spec_dict(model=MODEL | {"weights": {"source": str(path), "attention": "drop"}, "freeze": "backbone"})
    spec["train"]["attention_lr_scale"] = 2.0
    place = tmp_path / "spec.yaml"
    place.write_text(yaml.safe_dump(spec))
    with serving(create_app(settings)) as url:
        monkeypatch.setenv("CBAM_URL", url)
        yield place


def test_preview_and_show_say_what_a_training_starts_from(cbam, spec_file, settings):
    code, out, _ = cbam("preview", spec_file)
    assert code == 0
    path = settings.data_roots[0] / "w.pth"
    assert f"weights of {path}: " in out
    assert " loaded, " in out
    assert " missing, 0 unexpected" in out
    assert "parameters learn" in out
    assert "learning rates from 1 to 2 times lr" in out
    made = cbam("submit", spec_file)[1].split()[0]
    assert str(path) in cbam("show", made)[1]
