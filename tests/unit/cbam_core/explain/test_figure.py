"""What the figure says: of each kind of map what its numbers are, and of the scores whether they are right."""

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn

from cbam_core.attention import CBAM, GlobalContext
from cbam_core.explain import attention_figure, attention_maps

matplotlib.use("agg")


class Tiny(nn.Module):
    """One block with attention, whose scores are its first channels."""

    def __init__(self, attention: nn.Module, scores: torch.Tensor) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.attention = attention
        self.fc = nn.Linear(8, len(scores))
        with torch.no_grad():
            self.fc.weight.mul_(1e-3)
            self.fc.bias.copy_(scores)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.attention(self.conv(x)).mean((2, 3)))


SCORES = torch.tensor([2.0, 0.0, 1.0, -1.0, -2.0, -3.0, -9.0])
NAMES = ["nought", "one", "two", "three", "four", "five", "six"]


def words(figure) -> str:
    titles = [subfigure._suptitle.get_text() for subfigure in figure.subfigs if subfigure._suptitle]
    axes = [axes for subfigure in figure.subfigs for axes in subfigure.axes]
    texts = [text.get_text() for one in axes for text in one.texts]
    return "\n".join(titles + texts + [f"{one.get_title()} {one.get_ylabel()} {one.get_xlabel()}" for one in axes])


@pytest.mark.parametrize("fusion", ["add", "scale"])
def test_shares_of_a_context_are_not_called_factors(fusion, tmp_path):
    network = Tiny(GlobalContext(8, 4, fusion=fusion), SCORES)
    figure = attention_figure(network, torch.randn(1, 9, 9))
    figure.savefig(tmp_path / "figure.png", dpi=40)
    said = words(figure)
    assert "weight of the place in it (1 is an average place)" in said
    assert "the place is multiplied by" not in said
    assert ("is added to the channel" in said) == (fusion == "add")
    assert ("the channel is multiplied by" in said) == (fusion == "scale")


def test_gates_stand_beside_the_image_each_on_its_own_scale():
    network = Tiny(nn.Sequential(CBAM(8, 4, init="timm"), CBAM(8, 4, init="timm")), SCORES)
    image = torch.rand(1, 9, 9)
    figure = attention_figure(network, image)
    places = figure.subfigs[1]
    panels = [axes for axes in places.axes if axes.images]
    assert np.allclose(panels[0].images[0].get_array(), image[0])
    maps = attention_maps(network, image[None])
    for panel, site in zip(panels[1:], maps, strict=True):
        (shown,) = panel.images  # nothing lies under it or over it
        gate = maps[site]["spatial"][0]
        assert np.allclose(shown.get_array(), gate)
        assert shown.get_alpha() is None
        assert shown.get_clim() == pytest.approx((gate.min(), gate.max()))


@pytest.mark.parametrize(("label", "verdict"), [(0, ": right"), (1, ": wrong, it is “one”"), (6, "it is “six”")])
def test_the_true_class_and_whether_the_network_is_right(label, verdict):
    figure = attention_figure(Tiny(CBAM(8), SCORES), torch.rand(1, 9, 9), class_names=NAMES, label=label)
    image, _, bars = figure.subfigs[0].axes
    assert image.get_title() == f"the image: “{NAMES[label]}”"
    assert verdict in bars.get_title()
    shown = [text.get_text() for text in bars.get_yticklabels()]
    assert NAMES[label] in shown
    assert shown[:2] == ["nought", "two"]
    numbers = [text.get_text() for text in bars.texts]
    assert numbers[0] == f"{SCORES.softmax(0)[0]:.1%}"
    assert len(numbers) == len(shown) == (6 if label == 6 else 5)


def test_without_a_label_nothing_is_judged():
    figure = attention_figure(Tiny(CBAM(8), SCORES), torch.rand(1, 9, 9), class_names=NAMES)
    assert ": right" not in words(figure)
    assert "wrong" not in words(figure)


@pytest.mark.parametrize("wrong", [{"label": 7}, {"label": -1}, {"class_names": NAMES[:3]}])
def test_what_does_not_fit_the_classes_is_refused(wrong):
    with pytest.raises(ValueError, match="the network has 7 classes"):
        attention_figure(Tiny(CBAM(8), SCORES), torch.rand(1, 9, 9), **wrong)


def test_a_network_without_a_map_says_so_in_the_figure():
    network = nn.Sequential(nn.Conv2d(1, 8, 4), CBAM(8), nn.Flatten(), nn.Linear(8, 3))
    assert "no Grad-CAM: no module returns" in words(attention_figure(network, torch.rand(1, 4, 4)))
