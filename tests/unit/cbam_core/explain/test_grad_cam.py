"""Which map Grad-CAM explains: the last one that all evidence goes through, in either layout, or an error by name."""

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from cbam_core.errors import CbamError, NoFeatureMap
from cbam_core.explain import grad_cam
from cbam_core.explain.evidence import _last_map


class Corner(nn.Module):
    """Class 1 is how bright the upper left quarter is, from a map in either layout."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 3, 1, bias=False)
        self.turned = Permuted() if layout == "NHWC" else nn.Identity()
        nn.init.ones_(self.features.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.turned(self.features(x))
        y = y.permute(0, 3, 1, 2) if isinstance(self.turned, Permuted) else y
        corner = y[:, :, :4, :4].mean((1, 2, 3))
        return torch.stack([-corner, corner], 1)


class Permuted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).contiguous()


@pytest.mark.parametrize("shape", [(8, 8), (8, 16), (16, 8)])
def test_both_layouts_show_the_same_evidence(shape):
    image = torch.zeros(1, 1, *shape)
    image[0, 0, 1, 2] = 5
    first, last = (grad_cam(Corner(layout), image) for layout in ("NCHW", "NHWC"))
    assert first.shape == (1, *shape)
    assert np.unravel_index(first[0].argmax(), shape) == (1, 2)
    assert np.array_equal(first, last)
    assert np.array_equal(grad_cam(Corner("NHWC"), image, layer="turned"), first)
    assert not any(module._forward_hooks for module in Corner("NHWC").modules())


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("resnet50", 64, ("layer4", "NCHW")),
        ("resnet50", 32, ("layer3", "NCHW")),  # layer4 is one place; inside its branch there are wider maps
        ("regnetx_002", 32, ("s3", "NCHW")),
        ("mobilenetv3_small_100", 64, ("blocks", "NCHW")),
        ("vgg11", 224, ("features", "NCHW")),
        ("swin_tiny_patch4_window7_224", 224, ("norm", "NHWC")),
        ("mambaout_femto", 64, ("stages", "NHWC")),
        ("hrnet_w18_small", 64, ("final_layer", "NCHW")),
        ("caformer_s18", 64, ("stages", "NCHW")),
    ],
)
def test_the_map_of_timms_networks(name, size, expected):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=10).eval()
        assert _last_map(network, torch.zeros(1, 3, size, size)) == expected


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "mixer_s16_224", "levit_128s", "efficientformer_l1"])
def test_tokens_are_refused_by_name(name):
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=10).eval()
        with pytest.raises(NoFeatureMap, match="tokens"):
            _last_map(network, torch.zeros(1, 3, 224, 224))


def test_a_branch_is_not_the_network():
    """The widest last output stands in a branch, around which the shortcut goes."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.branch(x)).mean((2, 3), keepdim=True)

    network = nn.Sequential(nn.Conv2d(1, 1, 1), Block(), nn.Flatten(), nn.Linear(1, 2))
    assert _last_map(network, torch.zeros(1, 1, 4, 4)) == ("0", "NCHW")


def test_errors_have_a_name():
    assert issubclass(NoFeatureMap, CbamError)
    assert issubclass(NoFeatureMap, ValueError)
    network = nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten(), nn.Linear(3, 2))
    with pytest.raises(NoFeatureMap, match="no module returns"):
        grad_cam(network, torch.randn(1, 1, 4, 4))
    with pytest.raises(NoFeatureMap, match="2 returns no feature map"):
        grad_cam(network, torch.randn(1, 1, 4, 4), layer="2")


def test_looking_leaves_the_weights_and_their_gradients_alone():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    weights = list(network.parameters())
    grad_cam(network, torch.randn(2, 1, 8, 8))
    assert all(one is other for one, other in zip(weights, network.parameters(), strict=True))
    assert all(weight.requires_grad and weight.grad is None for weight in weights)
