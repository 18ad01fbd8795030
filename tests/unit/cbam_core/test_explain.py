"""What networks cost and where they look, counted by hand or against what was put in on purpose."""

import numpy as np
import pytest
import torch
from torch import nn

from cbam_core.attention import CBAM, SE
from cbam_core.explain import attention_figure, attention_maps, describe, grad_cam
from cbam_core.networks import build_network
from cbam_core.spec import ModelSpec


class Small(nn.Module):
    """3×3 convolution, CBAM, average, linear: every number can be counted on paper."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.attention = CBAM(8, 4, 3)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(self.attention(self.conv(x).relu()).mean((2, 3)))


def network(attention: str = "cbam") -> nn.Module:
    spec = ModelSpec.model_validate({"backbone": "cifar_resnet20", "attention": {"type": attention}})
    return build_network(spec, 10)


def test_a_small_network_on_paper():
    described = describe(Small(), (1, 6, 5))
    attention = 8 * 2 + 2 + 2 * 8 + 8 + 2 * 9 + 2  # W0, its bias, W1, its bias, 3×3 on two maps, BatchNorm
    assert described.parameters == 8 * 9 + attention + 8 * 4 + 4
    mlp = 2 * (8 * 2 + 2 * 8)  # twice: once per pool
    spatial = 30 * 2 * 9
    assert described.macs == 30 * 8 * 9 + mlp + spatial + 8 * 4
    assert described.activations == 30 * 8 + 2 * (2 + 8) + 30 + 4
    assert described.torch_flops == 2 * described.macs
    (site,) = described.attention
    assert (site.name, site.kind, site.channels) == ("attention", "CBAM", 8)
    assert (site.parameters, site.macs) == (attention, mlp + spatial)
    assert described.attention_share == attention / described.parameters
    assert described.attention_macs == mlp + spatial
    rows = {stage.name: stage for stage in described.stages}
    assert list(rows) == ["conv", "attention", "fc"]
    assert rows["conv"].output_shape == (8, 6, 5)
    assert rows["attention"].attention_parameters == attention


@pytest.mark.parametrize("attention", ["none", "cbam", "bam", "eca"])
def test_the_table_adds_up(attention):
    described = describe(network(attention), (3, 32, 32))
    for column in ("parameters", "macs", "activations", "attention_parameters", "attention_macs"):
        assert sum(getattr(stage, column) for stage in described.stages) == getattr(described, column, None) or (
            column == "attention_parameters"
        )
    assert sum(stage.attention_parameters for stage in described.stages) == described.attention_parameters


def test_stages_of_a_timm_network_are_rows():
    with torch.device("meta"):
        made = build_network(ModelSpec(backbone="timm:convnext_atto"), 10)
    names = [stage.name for stage in describe(made, (3, 64, 64)).stages]
    assert names == ["stem", "stages.0", "stages.1", "stages.2", "stages.3", "head"]


def test_looking_changes_nothing():
    made = network().train()
    made.layer1.eval()
    state = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    modes = [module.training for module in made.modules()]
    images = torch.randn(2, 3, 32, 32)
    describe(made, (3, 32, 32))
    attention_maps(made, images)
    grad_cam(made, images)
    assert all(torch.equal(tensor, state[name]) for name, tensor in made.state_dict().items())
    assert [module.training for module in made.modules()] == modes
    assert all(parameter.grad is None for parameter in made.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in made.modules())


def test_maps_are_what_the_network_multiplies_with():
    """Multiplying by hand with the maps of the last block gives that block's output."""
    made = network().eval()
    images = torch.randn(2, 3, 32, 32)
    seen = {}
    made.layer3[2].attention.register_forward_hook(lambda _m, inputs, output: seen.update(x=inputs[0], y=output))
    maps = attention_maps(made, images)
    assert len(maps) == 9
    last = maps["layer3.2.attention"]
    assert last["channel"].shape == (2, 64)
    assert last["spatial"].shape == (2, 8, 8)
    by_hand = seen["x"].detach().numpy() * last["channel"][:, :, None, None] * last["spatial"][:, None]
    assert np.allclose(by_hand, seen["y"].detach().numpy(), atol=1e-6)


def test_maps_of_modules_with_one_gate_for_both():
    maps = attention_maps(network("simam"), torch.randn(1, 3, 32, 32))
    assert maps["layer1.0.attention"]["gate"].shape == (1, 16, 32, 32)


def test_a_network_without_attention_has_no_maps():
    with pytest.raises(ValueError, match="no attention to show"):
        attention_maps(network("none"), torch.randn(1, 3, 32, 32))


class Corner(nn.Module):
    """Class 1 is how bright the upper left quarter is, by construction."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.features.weight)

    def forward(self, x):
        y = self.features(x)
        return torch.stack([-y[:, 0, :4, :4].mean((1, 2)), y[:, 0, :4, :4].mean((1, 2))], 1)


def test_grad_cam_finds_the_evidence():
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 1, 2] = 5
    heat = grad_cam(Corner(), image)
    assert heat.shape == (1, 8, 8)
    assert np.unravel_index(heat[0].argmax(), (8, 8)) == (1, 2)
    assert heat.max() == 1
    assert not grad_cam(Corner(), image, target=0).any()  # nothing speaks for the other class
    assert np.array_equal(grad_cam(Corner(), image, target=torch.tensor([1]), layer="features"), heat)


def test_grad_cam_needs_a_map():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ValueError, match="more than one place"):
        grad_cam(flat, torch.randn(1, 1, 2, 2))


@pytest.mark.parametrize("attention", ["cbam", "se", "simam", "global_context"])
def test_the_figure_has_a_panel_for_every_gate(attention, tmp_path):
    made = network(attention)
    figure = attention_figure(made, torch.randn(3, 32, 32), class_names=[f"digit {i}" for i in range(10)], max_blocks=4)
    figure.savefig(tmp_path / "attention.png", dpi=40)
    titles = [axes.get_title() for row in figure.subfigs for axes in row.axes]
    assert "the image" in titles
    assert sum("places" in title for title in titles) == (0 if attention == "se" else 4)
    assert sum("channels" in title for title in titles) == 4
    assert any("layer3.2" in title for title in titles)
    assert (tmp_path / "attention.png").stat().st_size > 5_000


def test_the_figure_shows_the_picture_a_person_knows():
    picture = torch.rand(1, 16, 16)
    small = nn.Sequential(nn.Conv2d(1, 16, 3), SE(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3))
    figure = attention_figure(small, (picture - 0.5) / 0.1, picture=picture)
    shown = figure.subfigs[0].axes[0].images[0].get_array()
    assert np.allclose(shown, picture[0])
    labels = [text.get_text() for text in figure.subfigs[0].axes[2].get_yticklabels()]
    assert sorted(labels) == ["class 0", "class 1", "class 2"]
